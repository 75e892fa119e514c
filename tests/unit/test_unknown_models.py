"""Who asks a model that does not exist is told which do, in a line that stays short."""

from __future__ import annotations

from penstock.domain.accounts.access import unknown
from penstock.service.models.pins import LineModel
from penstock.service.planning.line_models import LineModels


def test_ten_models_are_named_at_most_and_that_there_are_more() -> None:
    assert "There are: m00, m01, m02, m03, m04, m05, m06, m07, m08, m09 (GET" in unknown("x", _names(10), None)
    assert "m08, m09, … (GET" in unknown("x", _names(11), None)


def test_long_names_don_t_make_it_long() -> None:
    assert len(unknown("y" * 5_000, (f"{n}{'x' * 190}" for n in range(10)), None)) < 600
    assert "There are: 0xxx" in unknown("y", (f"{n}{'x' * 190}" for n in range(10)), None)


def test_a_key_hears_of_its_own_models_only() -> None:
    assert "There are: m03 (GET" in unknown("x", _names(10), frozenset({"m03", "x"}))
    assert "This key may ask none yet" in unknown("x", _names(10), frozenset({"x"}))


def test_a_line_is_told_the_same() -> None:
    models = LineModels(frozenset(_names(20)), frozenset({"m03", "x"}))
    assert models.fault(LineModel("x")) == ("model_not_found", unknown("x", _names(20), frozenset({"m03", "x"})))


def _names(count: int) -> list[str]:
    return [f"m{number:02}" for number in reversed(range(count))]

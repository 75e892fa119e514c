"""Packs have what is alike, within their bounds; what befalls one leads to halves, or to each line alone."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from penstock.formats.input import Line
from penstock_worker.engine.token_counter import TokenCounter
from penstock_worker.slices.line_request import Outcome, OutcomeKind
from penstock_worker.slices.pack import Pack, packed
from penstock_worker.slices.reuse import Group


def group(number: int, text: str | list[str] = "word", **more: int) -> Group:
    body = json.dumps({"model": "m", "input": text, **more}).encode()
    return Group([Line(number, f"c{number}", "/v1/embeddings", body)])


def counter() -> TokenCounter:
    return TokenCounter(lambda: lambda texts: [len(text.split()) for text in texts])


def numbers(packs: list[Pack]) -> list[list[int]]:
    return [[line.number for line in pack.lines] for pack in packs]


def outcome(kind: OutcomeKind, status: int = 0) -> Outcome:
    return Outcome(kind, status, b"{}", "r", 1)


def test_alike_lines_are_packed_in_their_order_up_to_a_number() -> None:
    assert numbers(packed([group(n) for n in range(7)], counter(), 3, 100)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_pack_has_so_many_tokens_but_for_one_lines_own() -> None:
    texts = ["a", "b c", "d e f", "g h i j k l m n", "o", "p"]
    packs = packed([group(n, text) for n, text in enumerate(texts)], counter(), 32, 5)
    assert numbers(packs) == [[0, 1], [2], [3], [4, 5]]
    assert [list(pack.tokens) for pack in packs] == [[(1,), (2,)], [(3,)], [(8,)], [(1,), (1,)]]


def test_lines_that_differ_or_are_lists_are_not_packed_together() -> None:
    groups = [group(0), group(1, dimensions=4), group(2, ["a", "b"]), group(3), group(4, dimensions=4), group(5, "")]
    assert numbers(packed(groups, counter(), 32, 100)) == [[0, 3], [1, 4], [2], [5]]


@pytest.mark.parametrize("most", [1, 32])
def test_nothing_is_packed_if_it_is_off_or_nobody_can_count(most: int) -> None:
    groups = [group(n) for n in range(3)]
    assert numbers(packed(groups, counter() if most == 1 else None, most, 100)) == [[0], [1], [2]]
    if most > 1:
        doubted = counter()
        doubted.doubt()
        assert numbers(packed(groups, doubted, most, 100)) == [[0], [1], [2]]
        assert numbers(packed(groups, TokenCounter(lambda: None), most, 100)) == [[0], [1], [2]]


def test_pairs_are_packed_by_the_most_tokens_that_they_may_be() -> None:
    def pair(number: int, second: str) -> Group:
        body = json.dumps({"model": "m", "text_1": "a", "text_2": second}).encode()
        return Group([Line(number, f"c{number}", "/v1/score", body)])

    def count(inputs: Sequence[str | tuple[str, ...]]) -> list[int]:
        return [6 if isinstance(one, tuple) else len(one.split()) for one in inputs]

    packs = packed(
        [pair(0, "b c"), group(1), pair(2, "d"), pair(3, "e"), group(4)], TokenCounter(lambda: count), 32, 17
    )
    assert numbers(packs) == [[0, 2], [3], [1, 4]]
    assert [list(pack.tokens) for pack in packs] == [[(9, 3, 2), (8, 2, 1)], [(8, 2, 1)], [(1,), (1,)]]


def test_followers_stay_with_their_leader() -> None:
    first = Group([*group(1).lines, *group(2).lines])
    [pack] = packed([first, group(3)], counter(), 32, 100)
    assert [line.number for line in pack.lines] == [1, 3]
    assert pack.groups[0] is first


def test_a_refused_pack_is_halved_down_to_single_lines() -> None:
    [pack] = packed([group(n) for n in range(5)], counter(), 32, 100)
    halves = pack.after(outcome(OutcomeKind.REFUSED, 400))
    assert numbers(halves) == [[0, 1, 2], [3, 4]]
    assert [list(half.tokens) for half in halves] == [[(1,)] * 3, [(1,)] * 2]
    assert numbers(halves[1].after(outcome(OutcomeKind.TOO_LARGE))) == [[3], [4]]


@pytest.mark.parametrize(
    "ended",
    [
        None,
        outcome(OutcomeKind.ANSWERED, 200),
        outcome(OutcomeKind.TIMED_OUT),
        outcome(OutcomeKind.UNREACHED),
        outcome(OutcomeKind.REFUSED, 429),
        outcome(OutcomeKind.REFUSED, 500),
    ],
)
def test_after_what_says_nothing_of_its_inputs_each_line_is_asked_alone(ended: Outcome | None) -> None:
    [pack] = packed([group(n) for n in range(4)], counter(), 32, 100)
    assert ended is None or pack.apart(ended) is None
    assert numbers(pack.after(ended)) == [[0], [1], [2], [3]]


def test_a_packs_request_is_its_lines_as_a_list_and_its_answer_comes_apart() -> None:
    [pack] = packed([group(8, "a b"), group(9, "c")], counter(), 32, 100)
    asked = pack.asked()
    assert (asked.number, json.loads(asked.body)["input"]) == (8, ["a b", "c"])
    data = [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [2.0]}]
    said = {"id": "e", "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    apart = pack.apart(Outcome(OutcomeKind.ANSWERED, 200, json.dumps(said).encode(), "r", 1, 0.5))
    assert apart is not None
    assert [one.request_id for one in apart] == ["r-0", "r-1"]
    assert [json.loads(one.body)["usage"]["prompt_tokens"] for one in apart] == [2, 1]
    assert [json.loads(one.body)["data"][0] for one in apart] == [{"index": 0, "embedding": [x]} for x in (1.0, 2.0)]

"""Tokens are counted by a model's own tokenizer.json, where there is one, whole and with its special tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from penstock_worker.engine.token_counter import TokenCounter, of_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of words, which begins each text with a token of its own and would cut and pad what it reads."""
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[PAD]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A [CLS] $B [CLS]", special_tokens=[("[CLS]", 1)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(pad_id=2, pad_token="[PAD]", length=4)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_texts_are_counted_whole_and_without_padding(folder: Path) -> None:
    count = of_model(str(folder), None, {})
    assert count is not None
    assert count(["a", "a b", "a b c d e f", ""]) == [2, 3, 7, 1]
    assert TokenCounter(lambda: count).of([("a", "b c"), ("d", "e")]) == [(6, 5, 3), (5, 4, 2)], "one, two, joined"


def test_a_model_of_the_hub_is_counted_by_the_files_in_the_cache(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "snapshots").mkdir()
    (repository / "refs" / "main").write_text("abc\n")
    folder.rename(repository / "snapshots" / "abc")
    cache = str(tmp_path / "hub")
    for revision, environ, named in ((None, {}, cache), ("abc", {"HF_HUB_CACHE": cache}, None), ("main", {}, cache)):
        count = of_model("org/name", revision, environ, named)
        assert count is not None
        assert count(["a b"]) == [3]
    assert of_model("org/other", None, {}, cache) is None


def test_nobody_counts_without_a_tokenizers_file_or_with_one_that_is_none(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    assert of_model(str(folder), None, {}) is None
    assert of_model(str(tmp_path), None, {}) is None
    assert of_model("s3://bucket/model", None, {"HF_HUB_CACHE": str(tmp_path)}) is None


def test_a_counter_loads_once_and_says_nothing_once_it_is_doubted() -> None:
    loads = []

    def load() -> None:
        loads.append(1)

    nobody = TokenCounter(load)
    assert (nobody.of([("a",)]), nobody.of([("b",)]), loads) == (None, None, [1])
    counter = TokenCounter(lambda: lambda texts: [len(text) for text in texts])
    assert counter.of([("a",), ("bc",)]) == [(1,), (2,)]
    counter.doubt()
    assert counter.of([("a",), ("bc",)]) is None

"""Beginnings of prompts: what two prompts share is what their hashes share, whichever way a request carries them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.formats.prefix import LEAST_BYTES, MOST_BEGINNINGS, PromptFields, beginnings

_read = msgspec.json.Decoder(PromptFields).decode


def of(**body: object) -> list[int]:
    return beginnings(_read(msgspec.json.encode(body)))


def common(one: list[int], other: list[int]) -> int:
    same = [a == b for a, b in zip(one, other, strict=False)]
    return same.index(False) if False in same else len(same)


def chat(*texts: str, **more: object) -> list[int]:
    roles = ["system", *["user", "assistant"] * len(texts)]
    return of(messages=[{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)], **more)


LONG, OTHER = "You classify what people say about water. " * 20, "You translate what people say about wheels. " * 20


@pytest.mark.parametrize(
    ("same", "different"),
    [
        ((chat(LONG, "a" * 90), chat(LONG, "b" * 90)), chat(OTHER, "a" * 90)),
        ((chat("s", LONG, "yes", "a" * 90), chat("s", LONG, "yes", "b" * 90)), chat("s", OTHER, "yes", "a" * 90)),
        ((chat("a", tools=[LONG]), chat("b", tools=[LONG])), chat("a", tools=[OTHER])),
        ((of(prompt=LONG + "a"), of(prompt=LONG + "b")), of(prompt=OTHER + "a")),
        ((of(instructions=LONG, input="a"), of(instructions=LONG, input="b")), of(instructions=OTHER, input="a")),
        (
            tuple(of(messages=[{"role": "user", "content": [{"type": "text", "text": LONG + end}]}]) for end in "ab"),
            of(messages=[{"role": "user", "content": [{"type": "text", "text": OTHER}]}]),
        ),
        ((chat(LONG, "a", cache_salt="x"), chat(LONG, "b", cache_salt="x")), chat(LONG, "a", cache_salt="y")),
    ],
    ids=["system", "example", "tools", "prompt", "instructions", "parts", "salt"],
)
def test_prompts_that_begin_alike_share_hashes_and_others_share_none(same: tuple, different: list[int]) -> None:
    one, other = same
    assert common(one, other) >= 2
    assert common(one, different) == 0


def test_the_end_of_a_system_prompt_is_a_beginning_of_its_own() -> None:
    """Two that part in their last words, behind the last fixed depth, part before their first questions."""
    first = chat("x" * 1_900 + "German" + "y" * 20, "a" * 200)
    second = chat("x" * 1_900 + "German" + "y" * 20, "b" * 200)
    third = chat("x" * 1_900 + "French" + "y" * 20, "a" * 200)
    assert common(first, second) == common(first, third) + 1


@given(st.text("ab", max_size=3_000), st.text("ab", max_size=3_000), st.text("ab", max_size=3_000))
def test_no_more_is_shared_than_begins_alike_and_at_most_a_third_of_it_is_missed(
    head: str, one: str, other: str
) -> None:
    found, against = of(prompt=head + "c" + one), of(prompt=head + "d" + other)
    alike = len(head) + 1  # the quote in front
    shared = common(found, against)
    assert common(of(prompt=head + "c" * 3_000), of(prompt=head + "d" * 3_000)) == shared
    assert shared == 0 or alike >= LEAST_BYTES
    assert alike < LEAST_BYTES * 1.5**shared + shared


@given(st.lists(st.text(max_size=400), max_size=60))
def test_a_prompt_has_a_bounded_number_of_beginnings(texts: list[str]) -> None:
    assert len(chat(*texts)) <= MOST_BEGINNINGS


@pytest.mark.parametrize("messages", ["text", 7, None, {"a": 1}, [1, "b" * 500], "x" * 1_000, [[[]]]])
def test_what_is_no_list_of_messages_has_beginnings_too_or_none(messages: object) -> None:
    assert of(messages=messages) == of(messages=messages)

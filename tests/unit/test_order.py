"""The order of work: prompts that begin alike are neighbours, long answers begin in time, and no line is lost."""

from __future__ import annotations

import random
from array import array
from collections import OrderedDict
from collections.abc import Sequence

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.formats.prefix import LEAST_BYTES, PromptFields, beginnings
from penstock.service.planning import order
from penstock.service.planning.order import Beginnings

_read = msgspec.json.Decoder(PromptFields).decode


def beginnings_of(lines: Sequence[Sequence[int]]) -> Beginnings:
    return Beginnings.of(array("I", [h for line in lines for h in line]), array("B", map(len, lines)))


def planned(lines: Sequence[Sequence[int]], longest: Sequence[int]) -> list[int]:
    reach = np.array(longest, dtype=np.uint32)
    return order.by_prefix(np.arange(len(lines)), beginnings_of(lines), reach).tolist()


def of_texts(texts: Sequence[str]) -> list[list[int]]:
    return [beginnings(_read(msgspec.json.encode({"prompt": text}))) for text in texts]


# Chained, as the hashes of beginnings are: a beginning is told by all that it holds.
paths = st.lists(st.integers(1, 3), max_size=4).map(
    lambda path: [int("".join(map(str, path[: depth + 1]))) for depth in range(len(path))]
)
batches = st.lists(st.tuples(paths, st.integers(0, 5)), max_size=40)


@given(batches)
def test_the_order_holds_every_line_once(batch: list) -> None:
    lines, longest = [line for line, _ in batch], [length for _, length in batch]
    assert sorted(planned(lines, longest)) == list(range(len(lines)))


@given(batches)
def test_lines_that_share_a_beginning_of_any_depth_are_neighbours(batch: list) -> None:
    lines, longest = [line for line, _ in batch], [length for _, length in batch]
    ordered = [lines[index] for index in planned(lines, longest)]
    for beginning in {h for line in lines for h in line}:
        places = [place for place, line in enumerate(ordered) if beginning in line]
        assert places == list(range(places[0], places[0] + len(places)))


@given(batches)
def test_within_every_branch_the_longest_answer_comes_first(batch: list) -> None:
    lines, longest = [line for line, _ in batch], [length for _, length in batch]
    places = planned(lines, longest)
    for beginning in {0} | {h for line in lines for h in line}:
        branch = [longest[index] for index in places if not beginning or beginning in lines[index]]
        assert not branch or branch[0] == max(branch)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50))
def test_where_nothing_is_shared_length_decides_and_then_the_file(longest: list[int]) -> None:
    lines = [[1_000 + number] for number in range(len(longest))]
    assert planned(lines, longest) == sorted(range(len(longest)), key=lambda index: (-longest[index], index))


@given(batches)
def test_what_neighbours_share_is_counted(batch: list) -> None:
    lines = [line for line, _ in batch]
    ordered = np.arange(len(lines))
    counted = order.shared(ordered, beginnings_of(lines)).tolist()
    for place in range(1, len(lines)):
        assert counted[place] == len(set(lines[place]) & set(lines[place - 1]))


@given(st.lists(st.integers(0, 4), max_size=40))
def test_followers_stand_behind_the_first_line_that_they_equal(prints: list[int]) -> None:
    leader = order.leaders(np.array(prints, dtype=np.uint64))
    members = np.arange(len(prints))
    heads = members[leader == members]
    ordered = order.with_followers(heads[::-1], leader, members).tolist()
    assert sorted(ordered) == members.tolist()
    assert [index for index in ordered if leader[index] == index] == heads[::-1].tolist()
    for place, index in enumerate(ordered):
        if leader[index] != index:
            assert prints[index] == prints[leader[index]] != 0
            assert leader[ordered[place - 1]] == leader[index]


def finished(lengths: Sequence[int], at_once: int) -> int:
    """Steps of an engine that makes one token of each of so many lines in a step, until the last line is done."""
    slots = [0] * min(at_once, len(lengths))
    for length in lengths:
        first = min(range(len(slots)), key=slots.__getitem__)
        slots[first] += length
    return max(slots)


def in_time(lengths: Sequence[int], lines: Sequence[Sequence[int]], at_once: int = 128) -> tuple[list[int], list[int]]:
    """The order of the tree, and what becomes of it."""
    numbers, begin, longest = np.arange(len(lengths)), beginnings_of(lines), np.array(lengths, dtype=np.uint32)
    ordered = order.by_prefix(numbers, begin, order.classes(longest, numbers))
    return ordered.tolist(), order.in_time(ordered, longest, order.shared(ordered, begin), at_once).tolist()


def lengths_of(places: Sequence[int], lengths: Sequence[int]) -> list[int]:
    return [lengths[index] for index in places]


def test_long_answers_of_the_last_branches_do_not_come_in_after_everything_else() -> None:
    lengths = ([10] * 95 + [200] * 5) * 20 + ([10] * 95 + [39] * 5) * 20 + ([10] * 95 + [400] * 5)
    lines = [[1 + index // 100] for index in range(len(lengths))]
    _, moved = in_time(lengths, lines)
    assert sorted(moved) == list(range(len(lengths)))
    assert finished(lengths_of(moved, lengths), 128) < 1.1 * sum(lengths) / 128
    cuts = int((order.shared(np.array(moved), beginnings_of(lines)) == 0).sum())
    assert cuts <= 2 * 41, "each branch is in two pieces at most"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([[], [7]]))
def test_where_nothing_or_everything_is_shared_the_engine_is_full_to_the_end(seed: int, common: list[int]) -> None:
    chance = random.Random(seed)
    lengths = [max(1, int(chance.lognormvariate(3, 1))) for _ in range(800)]
    _, moved = in_time(lengths, [common] * len(lengths), at_once=32)
    assert sorted(moved) == list(range(len(lengths)))
    least = max(max(lengths), sum(lengths) / 32)
    assert finished(lengths_of(moved, lengths), 32) <= 1.03 * least


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_lines_stay_in_file_order_until_near_the_end(seed: int) -> None:
    chance = random.Random(seed)
    lengths = [chance.randint(10, 39) for _ in range(500)]
    _, moved = in_time(lengths, [[]] * len(lengths), at_once=8)
    half = len(lengths) // 2
    kept = [index for index in moved if index < half]
    assert kept == sorted(kept), "answers of mixed lengths end one by one"


def test_far_longer_answers_come_first() -> None:
    lengths = [10] * 1_000 + [1_000] + [10] * 1_000 + [100] + [10] * 1_000
    assert in_time(lengths, [[]] * len(lengths))[0][:2] == [1_000, 2_001]


def test_where_answers_are_alike_nothing_is_moved() -> None:
    assert in_time([64] * 100, [[]] * 100, at_once=32)[1] == list(range(100))
    branches = [[1 + index % 20] for index in range(400)]
    ordered, moved = in_time([32] * 400, branches)
    assert ordered == moved


def computed(texts: Sequence[str], blocks: int, block_bytes: int = 64) -> int:
    """Blocks of prompts that an engine computes whose cache keeps the last so many (least recently used out)."""
    cache: OrderedDict[str, None] = OrderedDict()
    misses = 0
    for text in texts:
        hit = True
        for end in range(block_bytes, len(text) + 1, block_bytes):
            hit = hit and text[:end] in cache
            misses += not hit
            cache[text[:end]] = None
            cache.move_to_end(text[:end])
        while len(cache) > blocks:
            cache.popitem(last=False)
    return misses


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_a_small_prefix_cache_computes_less_than_half_of_what_file_order_makes_it_compute(seed: int) -> None:
    chance = random.Random(seed)
    systems = ["".join(chance.choices("abcd", k=2_000)) for _ in range(20)]
    examples = [system + "".join(chance.choices("efgh", k=600)) for system in systems for _ in range(3)]
    texts = [example + "".join(chance.choices("ijkl", k=200)) for example in examples for _ in range(10)]
    chance.shuffle(texts)
    ordered = planned(of_texts(texts), [16] * len(texts))
    blocks = 4 * 2_800 // 64  # some four prompts
    in_plan, in_file = computed([texts[index] for index in ordered], blocks), computed(texts, blocks)
    assert 2 * in_plan < in_file
    assert in_plan <= 1.1 * computed(texts, 10**6), "hardly more than a cache without bounds"


def test_short_prompts_have_no_beginnings_worth_an_order() -> None:
    assert of_texts(["x" * (LEAST_BYTES - 3), "x" * (LEAST_BYTES - 2)]) == [[], of_texts(["x" * (LEAST_BYTES - 2)])[0]]

"""Which batches of a data set were taken, next to sets of their numbers."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline import CaptureError
from hookline.capturing.cover import Cover, Part, shared, simplest

PARTS = st.tuples(st.integers(0, 11), st.integers(1, 12)).filter(lambda part: part[0] < part[1])


def cover(*parts: Part, examples: int = 100, **other: Any) -> Cover:
    return Cover({"data": "x"}, other.pop("inputs", "i"), examples, 4, parts, **other)


@settings(deadline=None)
@given(PARTS, PARTS, st.integers(0, 40))
def test_shared_batch_is_the_first_of_both(one: Part, other: Part, batches: int) -> None:
    both = {*range(one[0], batches, one[1])} & {*range(other[0], batches, other[1])}

    assert shared(one, other, batches) == min(both, default=None)


@settings(deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=4))
def test_simplest_parts_are_the_same_batches(parts: list[Part]) -> None:
    there = lambda parts: {number for first, step in parts for number in range(first, 300, step)}
    found = simplest(parts)

    assert there(found) == there(parts)
    assert found == simplest(parts[::-1])
    assert sum(len(range(first, 300, step)) for first, step in found) == len(there(parts))


def test_parts_of_all_processes_are_the_whole() -> None:
    found = cover((0, 3)).joined(cover((2, 3)))
    assert (found.parts, found.missing) == (((0, 3), (2, 3)), 8)
    assert found.joined(cover((1, 3))).parts == ((0, 1),)


@pytest.mark.parametrize("examples", [97, 98, 99, 100])
def test_examples_are_counted_with_a_last_batch_that_is_short(examples: int) -> None:
    parts = [cover((number, 3), examples=examples) for number in range(3)]

    assert sum(part.counted for part in parts) == examples
    assert cover((0, 1), examples=examples, skipped={3: "bad"}).counted == examples - 1


def test_batch_in_both_is_an_error_with_its_examples() -> None:
    with pytest.raises(CaptureError, match="both totals have examples 96 to 98 of the same data"):
        cover((24, 25), examples=99).joined(cover((0, 2), examples=99))


def test_other_inputs_for_the_same_data_are_an_error() -> None:
    with pytest.raises(CaptureError, match=r"other inputs for the same data \(a changed tokenizer\?\)"):
        cover((0, 2)).joined(cover((1, 2), inputs="other"))

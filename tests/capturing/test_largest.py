"""The largest values of each feature, next to a sort of all of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline import CaptureError
from hookline.capturing.largest import SHIFT, Largest, places_of

CPU = torch.device("cpu")


def brute_force(values: torch.Tensor, places: torch.Tensor, count: int) -> tuple[list[list[float]], list[list[int]]]:
    columns = [
        sorted(zip((-column).tolist(), places.tolist(), strict=True))[:count] for column in values.double().unbind(1)
    ]
    return [[-value for value, _ in column] for column in columns], [
        [place for _, place in column] for column in columns
    ]


def expect(found: Largest, values: torch.Tensor, places: torch.Tensor) -> None:
    count = min(len(found.values), len(values))
    expected, where = brute_force(values, places, count)
    assert found.values[:count].T.tolist() == expected
    assert found.places[:count].T.tolist() == where


def added(values: torch.Tensor, places: torch.Tensor, pieces: list[torch.Tensor], count: int) -> Largest:
    found = Largest.empty(count, values.shape[1], CPU)
    for rows in pieces:
        found.add(values[rows], places[rows])
    return found


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 8), st.integers(1, 9), st.integers(0, 10**6))
def test_it_is_what_a_sort_gives(rows: int, features: int, count: int, size: int, seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    values = torch.randint(-3, 4, (rows, features), generator=chance).float()
    places = places_of(torch.arange(rows) // 3, torch.arange(rows) % 3)
    pieces = list(torch.arange(rows).split(size))
    order = torch.randperm(len(pieces), generator=chance).tolist()

    expect(added(values, places, pieces, count), values, places)
    expect(added(values, places, [pieces[place] for place in order], count), values, places)


@pytest.mark.parametrize("kind", ["few", "many equal", "descending", "ascending"])
def test_long_batches_are_filtered_rightly(kind: str) -> None:
    values = torch.randn(4000, 7, generator=torch.Generator().manual_seed(0))
    if kind == "many equal":
        values = values.relu().round()
    if kind in ("descending", "ascending"):
        values = values.sort(dim=0, descending=kind == "descending").values
    places = places_of(torch.arange(4000), None)
    pieces = list(torch.arange(4000).split(1000))

    expect(added(values, places, pieces, 5), values, places)
    expect(added(values, places, pieces[::-1], 5), values, places)


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 10**6))
def test_merging_is_what_one_pass_gives(rows: int, count: int, seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    values = torch.randint(-2, 3, (rows, 3), generator=chance).double()
    places = places_of(torch.arange(rows), None)
    mine = torch.rand(rows, generator=chance) < 0.5
    one, other = (added(values, places, [rows], count) for rows in (mine, ~mine))
    one.merge(other)

    expect(one, values, places)


def test_fewer_rows_than_asked_for_are_all_there() -> None:
    found = added(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1 << SHIFT]), [torch.arange(2)], 5)
    top = found.top(2, by_position=True)

    assert top.values.tolist() == [[2.0], [1.0]]
    assert top.examples.tolist() == [[1], [0]]
    assert top.positions is not None
    assert top.positions.tolist() == [[0], [0]]
    assert top.numbers == {0, 1}


def test_position_that_cannot_be_numbered_is_an_error() -> None:
    with pytest.raises(CaptureError, match="numbers positions up to 16,777,215, and there is one at 16,777,216"):
        places_of(torch.tensor([0]), torch.tensor([2**24]))

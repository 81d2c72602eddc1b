"""Rows as batches: each once a pass, in an order that seed and epoch decide, shared among workers and ranks."""

import pickle
import random
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from capturing.conftest import Make, Tagger
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader

import hookline
from hookline import ArgumentError, StoreError
from hookline.capturing import dataset as datasets
from hookline.capturing.units import Unit

SMALL = {"buffer": 4000, "block": 200}


class Numbers(nn.Module):
    """Gives each position its number in the data set, so that a row shows which it is."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Identity()
        self.more = nn.Identity()
        self.less = nn.Identity()

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.less(x[:, :1])
        return self.more(self.rows(x)).sum()


@pytest.fixture
def numbered(tmp_path: Path) -> Any:
    """A capture of 700 examples of 1 to 3 rows; the first element of a row is its number."""

    def made(where: Any = "rows", width: int = 3, dtype: torch.dtype | None = None, **asked: Any) -> hookline.Capture:
        counts = [1 + number % 3 for number in range(700)]
        ends = torch.tensor(counts).cumsum(0).tolist()
        data = [torch.arange(end - count, end) for end, count in zip(ends, counts, strict=True)]

        def padded(batch: list[torch.Tensor]) -> dict[str, torch.Tensor]:
            x, mask = torch.zeros(len(batch), 3, width), torch.zeros(len(batch), 3)
            for place, numbers in enumerate(batch):
                x[place, : len(numbers)] = numbers[:, None].float()
                mask[place, : len(numbers)] = 1
            return {"x": x, "mask": mask}

        asked = {"rows": hookline.rows(mask="mask"), "batch": 10, "unit": 50, **asked}
        return hookline.capture(
            Numbers().eval(), data, where, to=tmp_path / "acts", call=padded, dtype=dtype, progress=False, **asked
        )

    return made


def numbers(batches: Any) -> list[int]:
    return [int(number) for batch in batches for number in batch[:, 0].tolist()]


def test_pass_in_order_gives_the_rows_in_order(numbered: Any) -> None:
    acts = numbered()
    batches = [*acts.torch(batch=100, shuffle=False, **SMALL)]
    assert torch.equal(torch.cat(batches), torch.cat([*acts["rows"]]))
    assert {len(batch) for batch in batches[:-1]} == {100}


def test_shuffled_pass_gives_every_row_once(numbered: Any) -> None:
    acts = numbered()
    found = [*acts.torch(batch=64, **SMALL)]
    assert sorted(numbers(found)) == [*range(acts["rows"].rows)]
    assert numbers(found) != [*range(acts["rows"].rows)]
    assert {len(batch) for batch in found[:-1]} == {64}
    assert all((batch == batch[:, :1]).all() for batch in found)


def test_neighbours_are_far_apart_and_far_rows_near(numbered: Any) -> None:
    found = torch.tensor(numbers(numbered().torch(batch=64, **SMALL)))
    assert (found.diff().abs() == 1).sum() < 0.1 * len(found)
    assert torch.corrcoef(torch.stack([found.float(), torch.arange(len(found)).float()]))[0, 1].abs() < 0.3


def test_order_follows_from_seed_and_epoch(numbered: Any) -> None:
    acts = numbered()
    first, again, other = acts.torch(**SMALL), acts.torch(batch=7, **SMALL), acts.torch(seed=1, **SMALL)
    assert numbers(first) == numbers(first) == numbers(again) != numbers(other)
    first.set_epoch(1)
    assert first.epoch == 1
    assert numbers(first) != numbers(again)
    again.set_epoch(1)
    assert numbers(first) == numbers(again)


def test_pass_keeps_the_order_that_it_began_with(numbered: Any) -> None:
    data = numbered().torch(batch=64, **SMALL)
    wanted = numbers(data)
    begun = iter(data)
    found = [next(begun)]
    data.set_epoch(9)
    assert numbers([*found, *begun]) == wanted


def test_no_generator_of_the_user_moves(numbered: Any) -> None:
    numpy = pytest.importorskip("numpy")
    data = numbered().torch(**SMALL)
    before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
    assert numbers(data)
    after = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_batches_keep_their_rows_when_the_pass_goes_on(numbered: Any) -> None:
    for shuffle in (True, False):
        data = numbered().torch(batch=64, shuffle=shuffle, **SMALL)
        kept = [*data]
        assert numbers(kept) == numbers(batch.clone() for batch in data)


def test_buffer_bounds_what_is_held(numbered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    acts, sizes = numbered(), []
    empty = datasets.Source.empty

    def measured(source: Any, rows: int) -> torch.Tensor:
        sizes.append(rows * source.row_bytes)
        return empty(source, rows)

    monkeypatch.setattr(datasets.Source, "empty", measured)
    assert numbers(acts.torch(batch=10, **SMALL))
    buffers = [size for size in sizes if size != 10 * 12]
    assert len(buffers) == 2
    assert sum(buffers) <= SMALL["buffer"]


def test_buffer_smaller_than_a_block_or_a_row_still_gives_all(numbered: Any) -> None:
    acts = numbered()
    for asked in ({"buffer": 1}, {"block": 1}, {"buffer": 100, "block": 10**9}, {"buffer": 10**9, "block": 10**9}):
        assert sorted(numbers(acts.torch(**asked))) == [*range(acts["rows"].rows)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e5m2, torch.float64])
def test_rows_of_each_dtype_are_shuffled(numbered: Any, dtype: torch.dtype) -> None:
    acts = numbered(dtype=dtype, width=5)
    (batch,) = acts.torch(batch=10_000, **SMALL)
    assert batch.dtype == dtype
    rows = torch.cat([*acts["rows"]]).float()
    assert torch.equal(batch.float()[:, 0].sort().values, rows[:, 0].sort().values)


def test_files_of_one_unit_are_one_after_another(numbered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Unit.write
    monkeypatch.setattr(Unit, "write", lambda unit, folder: write(unit, folder, largest=300))
    acts = numbered()
    assert len(acts.files) > 50
    assert numbers(acts.torch(shuffle=False)) == [*range(acts["rows"].rows)]
    assert sorted(numbers(acts.torch(**SMALL))) == [*range(acts["rows"].rows)]


def test_rows_without_positions_are_whole_examples(make: Make) -> None:
    acts = make(rows=None, where="embed")
    assert torch.equal(torch.cat([*acts.torch(shuffle=False)]), torch.stack([*acts["embed"]]))


def test_changed_file_is_an_error_of_the_pass(numbered: Any, tmp_path: Path) -> None:
    data = numbered().torch(**SMALL)
    path = max((tmp_path / "acts" / "data").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match="its record says"):
        numbers(data)


def test_pass_that_is_left_ends_its_thread(numbered: Any) -> None:
    import threading

    before = threading.active_count()
    begun = iter(numbered().torch(batch=5, **SMALL))
    next(begun)
    begun.close()
    assert threading.active_count() == before


# Several points


def test_several_points_give_their_rows_side_by_side(numbered: Any) -> None:
    acts = numbered(["rows", "more"])
    for batch in acts.torch(["rows", "more"], batch=50, **SMALL):
        assert batch.keys() == {"rows", "more"}
        assert torch.equal(batch["rows"], batch["more"])


def test_only_point_need_not_be_named(numbered: Any) -> None:
    with pytest.raises(ArgumentError, match=r"point= must say which of the points, .* rows, more"):
        numbered(["rows", "more"]).torch()


def test_unknown_point_is_named(numbered: Any) -> None:
    with pytest.raises(ArgumentError, match="'row' is not in the capture; its points are rows"):
        numbered().torch("row")


def test_points_with_other_rows_are_refused(numbered: Any) -> None:
    acts = numbered(["rows", "less"], rows=hookline.rows())
    with pytest.raises(
        ArgumentError, match="the rows of 'rows' and 'less' do not match: 2100 and 700; read them apart"
    ):
        acts.torch(["rows", "less"])


def test_points_with_other_positions_are_refused(numbered: Any) -> None:
    acts = numbered(["rows", "less"], rows=hookline.rows(positions=-1))
    with pytest.raises(ArgumentError, match="those of example 0 are of other positions"):
        acts.torch(["rows", "less"])


def test_points_with_other_counts_of_an_example_are_refused(numbered: Any, tmp_path: Path) -> None:
    acts = numbered(["rows", "more"])
    path = tmp_path / "acts" / acts.records[3]["points"]["more"]["files"][0]["name"]
    tensors = load_file(path)
    tensors["offsets"][8] += 1
    size = path.stat().st_size
    save_file(tensors, path)
    assert path.stat().st_size == size
    with pytest.raises(ArgumentError, match="example 157 has another number of them"):
        acts.torch(["rows", "more"])


def test_arguments_that_are_no_sizes_are_refused(numbered: Any) -> None:
    acts = numbered()
    for name in ("batch", "buffer", "block"):
        with pytest.raises(ArgumentError, match=f"{name} must be a whole number from 1, not 0"):
            acts.torch(**{name: 0})
    with pytest.raises(ArgumentError, match=r"seed must be a whole number, not 1\.5"):
        acts.torch(seed=1.5)


# Workers and ranks


@pytest.mark.parametrize("shuffle", [True, False])
def test_workers_share_the_rows(numbered: Any, shuffle: bool) -> None:
    acts = numbered()
    loader = DataLoader(acts.torch(batch=50, shuffle=shuffle, **SMALL), batch_size=None, num_workers=2)
    assert sorted(numbers(loader)) == [*range(acts["rows"].rows)]


def test_workers_that_live_on_see_the_epoch(numbered: Any) -> None:
    data = numbered().torch(batch=50, **SMALL)
    loader = DataLoader(data, batch_size=None, num_workers=1, persistent_workers=True)
    first, again = numbers(loader), numbers(loader)
    data.set_epoch(1)
    other = numbers(loader)
    del loader
    assert first == again != other
    assert other == numbers(data)


def test_ranks_share_the_rows_evenly(numbered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = numbered().torch(batch=50, **SMALL)
    found = []
    for rank in range(3):
        monkeypatch.setattr(datasets, "rank_and_world", lambda rank=rank: (rank, 3))
        found.append(numbers(data))
    assert Counter(number for own in found for number in own) == Counter(range(data.rows))
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_copy_in_another_process_knows_its_rank(numbered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = numbered().torch(batch=50, **SMALL)
    monkeypatch.setattr(datasets, "rank_and_world", lambda: (1, 2))
    sent, own = pickle.dumps(data), numbers(data)
    monkeypatch.setattr(datasets, "rank_and_world", lambda: (None, None))
    assert numbers(pickle.loads(sent)) == own
    assert len(numbers(data)) == data.rows


def test_empty_share_gives_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make(1, model=Tagger(), where="embed").torch()
    monkeypatch.setattr(datasets, "rank_and_world", lambda: (0, 2))
    with warnings.catch_warnings():
        assert [*data] == []

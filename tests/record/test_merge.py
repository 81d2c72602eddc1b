"""Runs of several ranks as one: which tensors are one tensor, and whose figures count."""

import math
from contextlib import suppress

import pytest
import torch
from torch import nn

import hookline
from hookline.errors import RecordError
from hookline.model.sharded import Part
from hookline.record.merge import merged

WHOLE = torch.arange(-5.0, 11.0).reshape(4, 4)


def run_of(tensor, *, part=None, keep="stats", rank=0, **options):
    """The run of one rank, of a module that gave a tensor which is a part of one."""
    model = nn.Identity()
    with hookline.watch(model, keep=keep, **options) as run:
        model(tensor)
    run.rank, run.world_size = rank, 4
    if part is not None:
        run.calls[0].output._part = part
    return run


def parts(placement, pieces, *, mesh=(2, 2), ranks=(0, 1, 2, 3)):
    """Runs of four ranks that hold these pieces of a tensor."""
    places = [(row, column) for row in range(2) for column in range(2)]
    return [
        run_of(piece, part=Part(tuple(piece.shape), placement, mesh, ranks, place[-len(mesh) :]), rank=rank)
        for rank, (piece, place) in enumerate(zip(pieces, places, strict=True))
    ]


def figures(info):
    return [getattr(info.stats, name) for name in ("count", "min", "max", "mean", "std", "norm", "zeros", "nan", "inf")]


def expected(tensor):
    return pytest.approx(figures(run_of(tensor).calls[0].output), rel=1e-6)


def output(runs):
    return merged(runs).calls[0].output


def test_parts_in_both_dimensions_of_a_mesh_are_one_tensor():
    pieces = [block for rows in WHOLE.chunk(2) for block in rows.chunk(2, dim=1)]
    assert figures(output(parts(("Shard(0)", "Shard(1)"), pieces))) == expected(WHOLE)


def test_copies_along_a_dimension_of_a_mesh_count_once():
    top, bottom = WHOLE.chunk(2)
    assert figures(output(parts(("Replicate()", "Shard(0)"), [top, bottom, top, bottom]))) == expected(WHOLE)


def test_copies_along_every_dimension_are_one():
    assert figures(output(parts(("Replicate()", "Replicate()"), [WHOLE] * 4))) == expected(WHOLE)


@pytest.mark.parametrize("placement", [("Partial(sum)", "Shard(0)"), ("Shard(0)", "Partial(avg)")])
def test_what_is_partial_in_any_dimension_has_no_figures(placement):
    assert output(parts(placement, [WHOLE] * 4)).stats is None


def test_groups_that_each_hold_a_tensor_of_their_own_are_told_apart():
    one, other = WHOLE, WHOLE + 100
    pieces = [*one.chunk(2), *other.chunk(2)]
    runs = [
        run_of(
            piece, part=Part((2, 4), ("Shard(0)",), (2,), (rank // 2 * 2, rank // 2 * 2 + 1), (rank % 2,)), rank=rank
        )
        for rank, piece in enumerate(pieces)
    ]
    info = output(runs)
    assert info.placement == ("PerRank()", "Shard(0)")
    assert (info.part.mesh, info.part.ranks) == ((2, 2), (0, 1, 2, 3))
    assert figures(info) == expected(torch.cat([one, other]))


def test_a_part_that_is_missing_leaves_no_figures():
    runs = parts(("Shard(0)", "Shard(1)"), [WHOLE] * 4)
    assert output(runs[:3]).stats is None


def test_an_empty_part_counts_for_nothing():
    pieces = [WHOLE[:2], WHOLE[2:], WHOLE[:0], WHOLE[:0]]
    runs = parts(("Shard(0)",), pieces, mesh=(4,))
    for place, run in enumerate(runs):
        run.calls[0].output._part = Part(tuple(pieces[place].shape), ("Shard(0)",), (4,), (0, 1, 2, 3), (place,))
    assert figures(output(runs)) == expected(WHOLE)


def test_nan_in_one_part_is_nan_in_the_whole():
    broken = WHOLE.clone()
    broken[3, 3] = math.nan
    pieces = [block for rows in broken.chunk(2) for block in rows.chunk(2, dim=1)]
    stats = output(parts(("Shard(0)", "Shard(1)"), pieces)).stats
    assert (stats.nan, math.isnan(stats.min), math.isnan(stats.mean)) == (1, True, True)


def test_plain_tensors_of_other_sizes_have_minus_one_where_they_differ():
    info = output([run_of(WHOLE), run_of(WHOLE[:1], rank=1)])
    assert (info.shape, info.placement, info.stats.count) == ((-1, 4), ("PerRank()",), 20)


def test_plain_tensors_that_are_the_same_keep_their_value():
    info = output([run_of(WHOLE, keep="copy"), run_of(WHOLE, keep="copy", rank=1)])
    assert torch.equal(info.value, WHOLE)
    assert info.placement is None


def test_plain_tensors_that_differ_have_no_value_but_each_ranks():
    info = output([run_of(WHOLE, keep="copy"), run_of(-WHOLE, keep="copy", rank=1)])
    assert info.value is None
    assert torch.equal(info.ranks[1].value, -WHOLE)


def test_without_figures_one_stands_for_all():
    info = output([run_of(WHOLE, keep="shape"), run_of(-WHOLE, keep="shape", rank=1)])
    assert (info.placement, info.stats) == (None, None)


def test_a_call_that_raised_on_one_rank_is_one_that_raised():
    model = nn.Linear(4, 4)
    runs = []
    for sizes in (4, 5):
        with hookline.watch(model) as run:
            with suppress(RuntimeError):
                model(torch.ones(1, sizes))
        runs.append(run)
    run = merged(runs)
    assert run.calls[0].error.startswith("RuntimeError")
    assert [own.error is None for own in run.calls[0].ranks] == [True, False]
    assert run.calls[0].output.shape == (1, 4)


def test_stages_of_a_pipeline_are_one_run():
    runs = []
    for stage in ("0", "1"):
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        with hookline.watch(model, stage) as run:
            model(torch.ones(1, 4))
        runs.append(run)
    run = merged(runs)
    assert [(call.path, [own is not None for own in call.ranks]) for call in run] == [
        ("0", [True, False]),
        ("1", [False, True]),
    ]
    assert [*run.modules] == ["0", "1"]


def test_nothing_cannot_be_merged():
    with pytest.raises(RecordError, match="no runs to merge"):
        merged([])

"""run.gather(): the runs of two processes as one, on rank 0."""

import pytest

import hookline
from hookline.testing import toy

FIGURES = ("count", "min", "max", "mean", "std", "norm", "zeros", "nan", "inf")
RUNS = ("tensor parallel", "ddp")


@pytest.fixture
def gathered(facts):
    return facts[0]["gathers"]


@pytest.mark.parametrize("name", RUNS)
def test_rank_0_gets_the_run_and_the_others_none(facts, name):
    assert [own["gathers"][name]["is"] for own in facts] == [True, False]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_knows_its_rank_and_how_many_there_are(facts, name):
    assert [[own["gathers"][name][member] for member in ("rank", "world_size")] for own in facts] == [[0, 2], [1, 2]]


@pytest.mark.parametrize("name", RUNS)
def test_a_gathered_run_is_of_all_ranks_and_holds_theirs(gathered, name):
    assert gathered[name]["run"] == [None, 2, [0, 1]]


@pytest.mark.parametrize("name", RUNS)
def test_a_gathered_run_has_each_call_once(gathered, name):
    assert len(gathered[name]["calls"]) == 30


@pytest.mark.parametrize("figures", ["stats", "grad_stats"])
def test_the_figures_of_a_tensor_parallel_model_are_those_of_the_whole_model(facts, gathered, figures):
    calls = gathered["tensor parallel"]["calls"]
    for call, alone in zip(calls, facts[0]["alone"], strict=True):
        assert call["path"] == alone["path"]
        for name in FIGURES:
            assert call[figures][name] == pytest.approx(alone[figures][name], rel=1e-4, abs=1e-6), (call["path"], name)


def test_a_plain_tensor_that_is_the_same_on_all_ranks_stands_once(gathered):
    down = next(call for call in gathered["tensor parallel"]["calls"] if call["path"] == "blocks.0.down")
    assert (down["placement"], down["stats"]["count"]) == (None, 48)


def test_it_keeps_the_histogram(gathered):
    down = next(call for call in gathered["tensor parallel"]["calls"] if call["path"] == "blocks.0.down")
    assert sum(down["stats"]["histogram"]) == 48


def test_parts_of_other_ranges_have_no_histogram_together(gathered):
    up = next(call for call in gathered["tensor parallel"]["calls"] if call["path"] == "blocks.0.up")
    assert up["stats"]["histogram"] is None


def test_batches_of_the_ranks_are_marked_and_measured_together(gathered):
    up = next(call for call in gathered["ddp"]["calls"] if call["path"] == "blocks.0.up")
    assert (up["shape"], up["placement"], up["stats"]["count"]) == ([6, 10], ["PerRank()"], 120)


def test_what_each_rank_knows_is_at_hand(gathered):
    one, other = gathered["ddp"]["ranks"]
    both = next(call for call in gathered["ddp"]["calls"] if call["path"] == "blocks.0.up")["stats"]["mean"]
    assert both == pytest.approx((one + other) / 2)
    assert gathered["ddp"]["infos"] == [60, 60]


@pytest.mark.parametrize("name", RUNS)
def test_a_gathered_run_comes_back_from_disk(gathered, name):
    assert gathered[name]["loaded"] == {part: gathered[name][part] for part in gathered[name]["loaded"]}


def test_calls_that_rank_0_did_not_make_come_after_its_own(facts):
    calls = facts[0]["odd"]["calls"]
    assert [call[1:] for call in calls] == [[0, [True, True]]] * 10 + [[1, [False, True]]] * 10


def test_they_stand_inside_of_the_calls_that_made_them(facts):
    assert facts[0]["odd"]["parents"][10:12] == [None, ["", 1]]


def test_a_rank_whose_run_cannot_be_sent_says_so_and_rank_0_names_it(facts):
    assert [own["odd"]["refused"][0] for own in facts] == ["RecordError", "StoreError"]
    assert "rank 1 could not send the run" in facts[0]["odd"]["refused"][1]


def test_without_torch_distributed_there_is_one_clear_error():
    with hookline.watch(toy()) as run:
        pass
    with pytest.raises(hookline.RecordError, match="torch.distributed is not initialized in this process"):
        run.gather()


def test_without_torch_distributed_a_run_has_no_rank():
    with hookline.watch(toy()) as run:
        pass
    assert (run.rank, run.world_size, run.ranks) == (None, None, ())

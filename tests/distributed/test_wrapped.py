"""Models that are distributed, with a watch put on before and after: in two processes under torchrun."""

import pytest

WAYS = ["ddp", "fsdp", "fsdp whole after forward", "fsdp bfloat16", "tensor parallel"]
PATHS = ["", *(f"blocks.{block}{part}" for block in (0, 1) for part in ("", ".up", ".act", ".down")), "head"]
each_way = pytest.mark.parametrize("way", WAYS)
each_time = pytest.mark.parametrize("when", ["before", "after"])


@each_way
@each_time
def test_the_losses_are_bit_for_bit_those_without_a_watch(trainings, way, when):
    for own in trainings:
        assert own[way][when]["losses"] == own[way]["bare"]


@each_way
@each_time
def test_calls_have_the_paths_of_the_bare_model(trainings, way, when):
    for own in trainings:
        assert [call["path"] for call in own[way][when]["calls"]] == 3 * PATHS


@each_way
@each_time
def test_calls_stand_inside_of_the_calls_that_made_them(trainings, way, when):
    parents = {"": None, "head": "", "blocks.0": "", "blocks.1": "", "blocks.1.up": "blocks.1"}
    for own in trainings:
        found = {call["path"]: call["parent"] for call in own[way][when]["calls"]}
        assert {path: found[path] for path in parents} == parents


@each_way
@each_time
def test_every_output_has_its_gradient(trainings, way, when):
    for own in trainings:
        assert all(call["grad"] for call in own[way][when]["calls"])


@each_way
def test_every_input_has_its_gradient_where_that_is_asked_for(trainings, way):
    for own in trainings:
        assert own[way]["inputs"]["grads"] == [True, True, True]


@each_way
def test_a_watch_before_and_one_after_record_the_same_figures(trainings, way):
    for own in trainings:
        assert own[way]["before"]["calls"] == own[way]["after"]["calls"]


@each_way
def test_no_call_raised(trainings, way):
    for own in trainings:
        assert not any(call["error"] for call in own[way]["after"]["calls"])


def test_ranks_of_data_parallel_training_record_batches_of_their_own(trainings):
    one, other = (own["ddp"]["after"]["calls"][0]["norm"] for own in trainings)
    assert one != other


def test_under_tensor_parallelism_an_output_that_is_spread_tells_how(trainings):
    for own in trainings:
        up = next(call for call in own["tensor parallel"]["after"]["calls"] if call["path"] == "blocks.0.up")
        assert (up["shape"], up["local_shape"], up["placement"]) == ([6, 10], [6, 5], ["Shard(1)"])


def test_so_does_its_gradient(trainings):
    for own in trainings:
        up = next(call for call in own["tensor parallel"]["after"]["calls"] if call["path"] == "blocks.0.up")
        assert up["grad_placement"] == ["Shard(1)"]


def test_an_output_that_each_rank_has_whole_is_a_plain_one(trainings):
    for own in trainings:
        down = next(call for call in own["tensor parallel"]["after"]["calls"] if call["path"] == "blocks.0.down")
        assert (down["local_shape"], down["placement"]) == ([6, 8], None)


def test_the_table_tells_the_placement_and_the_rank(trainings):
    for rank, own in enumerate(trainings):
        table = own["tensor parallel"]["after"]["run"]
        assert "6x10 Shard(1)" in table
        assert table.splitlines()[0].endswith(f", rank {rank} of 2")


def test_under_the_older_fsdp_the_losses_and_paths_are_those_without(facts):
    for own in facts:
        assert own["first fsdp"]["losses"] == own["first fsdp"]["bare"]
        assert own["first fsdp"]["paths"] == sorted(PATHS)


@pytest.mark.parametrize("way", ["fsdp", "tensor parallel"])
def test_the_other_tools_run_on_distributed_models(facts, way):
    for own in facts:
        assert own["tools"][way]["check"] == []
        assert own["tools"][way]["profile"] == len(PATHS)
        assert "no difference in 10 calls" in own["tools"][way]["diff"]


def test_a_backward_step_is_given_the_gradient_as_it_lies(facts):
    assert [own["tools"]["tensor parallel"]["step"] for own in facts] == [["DTensor"], ["DTensor"]]


@pytest.mark.parametrize("way", ["fsdp", "tensor parallel"])
def test_the_losses_are_bit_for_bit_those_without_a_guard(facts, way):
    for own in facts:
        assert own["guards"][way] == own["trainings"][way]["bare"]


def test_a_guard_finds_nan_first_where_the_rank_holds_it(facts):
    assert [own["guards"]["found"] for own in facts] == [["blocks.1.down", "forward"], ["blocks.1.up", "forward"]]

"""One DTensor that lies in every way over two processes: what a run of one process knows of it, and a gathered one."""

import math

import pytest

PLACED = {"rows": "Shard(0)", "columns": "Shard(1)", "copies": "Replicate()", "summands": "Partial(sum)"}
LOCAL = {"rows": [[3, 3], [2, 3]], "columns": [[5, 2], [5, 1]], "copies": [[5, 3]] * 2, "summands": [[5, 3]] * 2}
each = pytest.mark.parametrize("name", PLACED)


@each
def test_the_placement_is_recorded(facts, name):
    assert [own["placed"][name]["placement"] for own in facts] == [[PLACED[name]]] * 2


@each
def test_the_shape_is_of_the_whole(facts, name):
    assert [own["placed"][name]["shape"] for own in facts] == [[5, 3]] * 2


@each
def test_the_local_shape_is_of_the_part(facts, name):
    assert [own["placed"][name]["local_shape"] for own in facts] == LOCAL[name]


@each
def test_statistics_are_of_the_part(facts, name):
    assert all(own["placed"][name]["local"] for own in facts)


@each
def test_a_saved_run_holds_the_part(facts, name):
    stored = [own["placed"][name]["stored"] for own in facts]
    assert stored == [[shape, shape, [PLACED[name]]] for shape in LOCAL[name]]


@pytest.mark.parametrize("name", ["rows", "columns", "copies"])
def test_gathered_statistics_are_those_of_the_whole(facts, name):
    gathered, whole = facts[0]["placed"][name]["gathered"], facts[0]["placed"]["whole"]
    assert all(
        one == other or (math.isnan(one) and math.isnan(other))
        for one, other in zip(gathered.values(), whole.values(), strict=True)
    )


def test_what_is_partial_has_no_statistics_of_the_whole(facts):
    assert facts[0]["placed"]["summands"]["gathered"] is None


@each
def test_printed_it_tells_its_placement(facts, name):
    assert PLACED[name] in facts[0]["placed"][name]["text"]

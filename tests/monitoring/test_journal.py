"""Tests of the journal: what is on disk, after a kill and a resume too."""

import json
from pathlib import Path

import pytest

from hookline import StoreError
from hookline.monitoring.journal import Journal, lines_of, read_header

NAMES = [("0", "output", "rms")]


def journal(folder: Path) -> Journal:
    return Journal(folder, {"model": "Model"})


def steps(folder: Path) -> list[int]:
    return [line["step"] for line, _ in lines_of(folder) if "step" in line]


def written(folder: Path, numbers: range) -> Journal:
    made = journal(folder)
    for step in numbers:
        made.write(step, NAMES, [float(step)])
    return made


def test_samples_come_back(tmp_path: Path) -> None:
    written(tmp_path, range(3)).close()
    found = [(line["step"], line["values"], names) for line, names in lines_of(tmp_path)]
    assert found == [(step, [float(step)], NAMES) for step in range(3)]


def test_samples_are_there_before_the_journal_is_closed(tmp_path: Path) -> None:
    written(tmp_path, range(3))
    assert steps(tmp_path) == [0, 1, 2]


def test_resumed_run_takes_the_place_of_later_steps(tmp_path: Path) -> None:
    written(tmp_path, range(10)).close()
    written(tmp_path, range(6, 9)).close()
    assert steps(tmp_path) == [0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_run_resumed_earlier_twice_has_each_step_once(tmp_path: Path) -> None:
    for numbers in (range(10), range(6, 9), range(3, 5)):
        written(tmp_path, numbers).close()
    assert steps(tmp_path) == [0, 1, 2, 3, 4]


def test_line_without_its_end_does_not_count(tmp_path: Path) -> None:
    written(tmp_path, range(3)).close()
    (part,) = tmp_path.glob("part-*")
    part.write_text(part.read_text()[:-4])
    assert steps(tmp_path) == [0, 1]


def test_new_series_are_named_where_they_begin(tmp_path: Path) -> None:
    made = written(tmp_path, range(1))
    more = [*NAMES, ("0.weight", "state.exp_avg", "rms")]
    made.write(1, more, [1.0, 2.0])
    assert [names for _, names in lines_of(tmp_path)] == [NAMES, more]


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    journal(tmp_path).write(0, NAMES * 2, [float("nan"), float("inf")])
    assert [line["values"] for line, _ in lines_of(tmp_path)] == [[None, None]]


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(StoreError, match=r"holds thesis\.txt and no run of a monitor"):
        journal(tmp_path)


def test_run_of_another_model_is_refused(tmp_path: Path) -> None:
    journal(tmp_path)
    with pytest.raises(StoreError, match="holds the run of a Model, and this model is a Other"):
        Journal(tmp_path, {"model": "Other"})


def test_damaged_line_is_named(tmp_path: Path) -> None:
    written(tmp_path, range(3)).close()
    (part,) = tmp_path.glob("part-*")
    part.write_text(part.read_text().replace('"step":1', '"step"'))
    with pytest.raises(StoreError, match="is damaged"):
        steps(tmp_path)


def test_header_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    journal(tmp_path)
    told = json.loads((tmp_path / "journal.json").read_text())
    (tmp_path / "journal.json").write_text(json.dumps({**told, "version": 2}))
    with pytest.raises(StoreError, match="update hookline"):
        read_header(tmp_path)

"""Tests that every result is text for print() and one table for display in a notebook that is really run."""

import os
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel")
pytest.importorskip("ipykernel", reason="needs nbclient and ipykernel")

SETUP = """
import torch, hookline
from torch import nn
from hookline import edits
model, x = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.ones(1, 2)
other = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
with hookline.watch(model) as run:
    model(x)
model[0].register_forward_hook(lambda *_: None)
results = {
    "run": run,
    "diff": hookline.diff(model, other, x),
    "findings": hookline.check(model, x),
    "hooks": hookline.hooks(model),
    "sweep": hookline.sweep(model, "**", edits.zero(), lambda output, _: output.sum(), [x]),
    "profile": hookline.profile(model, x, repeat=1),
}
"""
NAMES = ["run", "diff", "findings", "hooks", "sweep", "profile"]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What a notebook shows of each result, by name and by how: shown as the last line of a cell, printed, by repr."""
    pages = {("", "setup"): SETUP}
    for name in NAMES:
        pages[name, "shown"] = f"results[{name!r}]"
        pages[name, "displayed"] = f"display(results[{name!r}])"
        pages[name, "printed"] = f"print(results[{name!r}])"
        pages[name, "repr"] = f"text = repr(results[{name!r}]); text"
        pages[name, "str"] = f"print(str(results[{name!r}]) == repr(results[{name!r}]))"
        pages[name, "rich"] = f"import rich; rich.print(results[{name!r}])"
    cells = [nbformat.v4.new_code_cell(source) for source in pages.values()]
    folder = tmp_path_factory.mktemp("notebook")
    known = {**os.environ, "IPYTHONDIR": str(folder)}
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute(env=known)
    return dict(zip(pages, (cell.outputs for cell in notebook.cells), strict=True))


def printed(outputs: list[Any]) -> str:
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


def test_making_results_shows_nothing(outputs: dict[Any, list[Any]]) -> None:
    assert outputs["", "setup"] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_printed_result_is_its_table(outputs: dict[Any, list[Any]], name: str) -> None:
    assert {output.output_type for output in outputs[name, "printed"]} == {"stream"}
    assert printed(outputs[name, "printed"]).startswith("Sequential")


@pytest.mark.parametrize("name", NAMES)
def test_repr_of_a_result_is_text_and_shows_nothing_itself(outputs: dict[Any, list[Any]], name: str) -> None:
    (only,) = outputs[name, "repr"]

    assert only.data["text/plain"].startswith(("'Sequential", '"Sequential'))


@pytest.mark.parametrize("name", NAMES)
def test_str_of_a_result_is_its_repr(outputs: dict[Any, list[Any]], name: str) -> None:
    assert printed(outputs[name, "str"]) == "True\n"


@pytest.mark.parametrize("way", ["shown", "displayed"])
@pytest.mark.parametrize("name", NAMES)
def test_a_shown_result_is_one_output_with_html_and_text(outputs: dict[Any, list[Any]], name: str, way: str) -> None:
    (only,) = outputs[name, way]

    assert only.data["text/html"].startswith(("<iframe", "<div"))
    assert only.data["text/plain"].startswith("Sequential")


@pytest.mark.parametrize("name", NAMES)
def test_rich_prints_a_result_once(outputs: dict[Any, list[Any]], name: str) -> None:
    assert len(outputs[name, "rich"]) == 1

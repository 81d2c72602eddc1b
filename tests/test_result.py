"""Every result has the same faces: looked up, counted, summed up, saved and loaded, exported, shown."""

import inspect
import io
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hookline
from hookline import RecordError, StoreError
from hookline.loading import DOCUMENTS
from hookline.model.console import Console
from hookline.report.renderers import RENDERERS
from hookline.result import Result

X = torch.ones(2, 4)


class Twice(nn.Module):
    """Calls its child twice; the child's output is NaN where it is spoiled."""

    def __init__(self, spoiled: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(4, 4)
        self.idle = nn.Identity()
        if spoiled:
            nn.init.constant_(self.inner.weight, float("nan"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(self.inner(x).relu())


def total(output: torch.Tensor, _: Any) -> torch.Tensor:
    return output.sum()


def run(*, empty: bool = False) -> hookline.Run:
    model = Twice()
    with hookline.watch(model, keep="copy", grads=True) as found:
        if not empty:
            model(X * float("inf")).sum().backward()
    return found


def findings(*, empty: bool = False) -> hookline.Findings:
    return hookline.check(nn.Sequential(nn.Linear(4, 4)) if empty else Twice(spoiled=True), X)


def diff(*, empty: bool = False) -> hookline.Diff:
    return hookline.diff(Twice(), Twice(spoiled=not empty), X)


def profile(*, empty: bool = False) -> hookline.Profile:
    found = hookline.profile(Twice(), X, repeat=2)
    return hookline.Profile([], model="Twice", device="cpu", repeat=0, backward=False) if empty else found


def sweep(*, empty: bool = False) -> hookline.Sweep:
    found = hookline.sweep(Twice(), ["inner", "idle"], hookline.edits.zero(), total, [X, X * float("inf")])
    if empty:
        found.cells.clear()
    return found


def hooks(*, empty: bool = False) -> hookline.Hooks:
    model = Twice()
    if not empty:
        model.inner.register_forward_hook(lambda *_: None)
        model.inner.register_forward_pre_hook(lambda *_: None)
    return hookline.hooks(model)


def capture(*, empty: bool = False, spoiled: bool = False) -> hookline.Capture:
    folder = Path(tempfile.mkdtemp(dir=FOLDERS.name)) / "acts"
    model, data = Twice().eval(), [torch.full((4,), float("inf") if spoiled else 1.0), torch.ones(4)]
    hookline.capture(model, data, ["inner"], to=folder, batch=1, unit=1, calls="last", errors="skip", progress=False)
    if empty:
        shutil.rmtree(folder / "units")
    return hookline.open(folder)


def comparison(*, empty: bool = False) -> hookline.CaptureDiff:
    return hookline.diff(capture(), capture(spoiled=not empty))


def totals(*, empty: bool = False) -> hookline.Totals:
    data = [torch.full((4,), float("inf")), torch.full((4,), float("inf") if empty else 1.0)]
    asked = {"covariance": True, "histogram": True, "top": 1, "calls": "last", "batch": 1, "errors": "skip"}
    return hookline.totals(Twice().eval(), data, ["inner"], progress=False, **asked)


def monitor(*, empty: bool = False) -> hookline.Monitor:
    model = Twice()
    live = hookline.monitor(model, torch.optim.SGD(model.parameters(), lr=0.1), alert=hookline.alerts.nonfinite())
    with live:
        for scale in () if empty else (1.0, float("inf")):
            model(X * scale).sum().backward()
            live.step()
    live.save(folder := Path(tempfile.mkdtemp(dir=FOLDERS.name)) / "monitor")
    return hookline.load(folder)


FOLDERS = tempfile.TemporaryDirectory()
KINDS = (run, findings, diff, profile, sweep, hooks, capture, comparison, totals, monitor)
MAKE: dict[str, Callable[..., Any]] = {each.__name__: each for each in KINDS}
CACHE: dict[str, Any] = {}


@pytest.fixture(params=MAKE)
def result(request: pytest.FixtureRequest) -> Any:
    """A result of each kind in which something was found."""
    if request.param not in CACHE:
        CACHE[request.param] = MAKE[request.param]()
    return CACHE[request.param]


def all_results(kind: type = Result) -> set[type]:
    """Every class of results that has a name; a dataclass with slots leaves behind the one that it was made of."""
    found = {each for below in kind.__subclasses__() for each in (below, *all_results(below))}
    return {each for each in found if getattr(sys.modules[each.__module__], each.__name__) is each}


def test_every_result_is_tested_here() -> None:
    made = {type(MAKE[name]()) for name in MAKE}
    assert all_results() - {hookline.LiveMonitor} == made == set(RENDERERS)  # a live one is shown as a Monitor
    assert {kind.noun for kind in made} == {*DOCUMENTS, "capture"} == set(MAKE)  # a capture is a folder of many files
    assert not any(inspect.isabstract(kind) for kind in made)


# Looking up


def test_path_gives_an_entry_of_the_module(result: Any) -> None:
    assert result["inner"].path == "inner"


def test_path_and_number_gives_an_entry_of_the_module(result: Any) -> None:
    assert result["inner", 0].path == "inner"
    assert result["inner", -1] is [entry for entry in result if entry.path == "inner"][-1]


def test_number_gives_the_entry_at_that_place(result: Any) -> None:
    assert result[0] is next(iter(result))
    assert result[-1] is [*result][-1]
    assert result[:1] == (result[0],)
    with pytest.raises(IndexError, match=f"the {result.noun} has"):
        result[1000]


def test_contains_its_paths_and_its_entries(result: Any) -> None:
    assert "inner" in result
    assert "nowhere" not in result
    assert result[0] in result


def test_missing_path_names_the_nearest(result: Any) -> None:
    with pytest.raises(RecordError, match=f"'iner' is not in the {result.noun}; nearest: inner"):
        result["iner"]
    with pytest.raises(RecordError, match=f"'iner' is not in the {result.noun}; nearest: inner"):
        result["iner", 1]


def test_missing_number_says_how_many_there_are(result: Any) -> None:
    with pytest.raises(RecordError, match=rf"'inner' has \d {result.entry}s? in the {result.noun}, but none at 100"):
        result["inner", 100]


def test_other_key_says_how_to_look_up(result: Any) -> None:
    with pytest.raises(RecordError, match=re.escape(f"{result.noun}['path'] is the first {result.entry} of a module")):
        result[None]


def test_iteration_and_len_go_over_all_entries(result: Any) -> None:
    assert len([*result]) == len(result) > 0
    assert [*reversed(result)] == [*result][::-1]


# Whether something was found


def test_true_where_something_was_found(result: Any) -> None:
    assert result


@pytest.mark.parametrize("name", MAKE)
def test_false_where_nothing_was_found(name: str) -> None:
    assert not MAKE[name](empty=True)


# Words and data


def test_summary_is_a_line_or_two_about_the_model(result: Any) -> None:
    assert result.summary.startswith("Twice")
    assert len(result.summary.splitlines()) <= 2
    assert " ".join(result.summary.split()) in " ".join(str(result).split())


def test_json_is_the_dict(result: Any) -> None:
    assert json.loads(result.to_json()) == result.to_dict()


def test_pandas_has_a_row_for_each_entry(result: Any) -> None:
    pytest.importorskip("pandas")
    frame = result.to_pandas()
    rows = sum(map(len, result)) if isinstance(result, hookline.Monitor) else len(result)
    assert len(frame) == rows
    assert tuple(frame.columns) == tuple(result.columns)


def test_without_pandas_the_error_says_what_to_install(result: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'hookline\[data\]'"):
        result.to_pandas()


# Saving and loading


@pytest.fixture
def loaded(result: Any, tmp_path: Path) -> Any:
    result.save(tmp_path / "saved")
    return hookline.load(tmp_path / "saved")


def test_loaded_result_is_of_the_same_kind(result: Any, loaded: Any) -> None:
    assert type(loaded) is type(result)


def test_loaded_result_exports_as_the_original(result: Any, loaded: Any) -> None:
    assert loaded.to_dict() == result.to_dict()


def test_loaded_result_prints_as_the_original(result: Any, loaded: Any) -> None:
    assert str(loaded) == str(result)
    assert loaded.summary == result.summary
    assert bool(loaded) == bool(result)


def test_loaded_result_pages_as_the_original(result: Any, loaded: Any, tmp_path: Path) -> None:
    assert loaded.page(tmp_path / "a.html").read_text() == result.page(tmp_path / "b.html").read_text()


@pytest.mark.parametrize("name", MAKE)
def test_empty_result_comes_back(name: str, tmp_path: Path) -> None:
    found = MAKE[name](empty=True)
    found.save(tmp_path / "saved")
    assert str(hookline.load(tmp_path / "saved")) == str(found)


def test_saving_replaces_one_of_the_same_kind_only(result: Any, tmp_path: Path) -> None:
    result.save(tmp_path / "saved")
    result.save(tmp_path / "saved")
    hookline.edits.save(hookline.edits.zero(), tmp_path / "edit")
    with pytest.raises(StoreError, match=f"is not a saved {result.noun}"):
        result.save(tmp_path / "edit")


def test_folder_without_a_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no run\.json or .*monitor\.json, so it is not a saved result"):
        hookline.load(tmp_path)


# Showing


def test_page_is_written_and_its_path_returned(result: Any, tmp_path: Path) -> None:
    page = result.page(str(tmp_path / "page.html"))
    assert page == tmp_path / "page.html"
    assert "<!doctype html>" in page.read_text()
    assert "Twice" in page.read_text()


def test_notebook_shows_html(result: Any) -> None:
    assert result._repr_html_().startswith("<")
    assert "inner" in result._repr_html_()


def test_rich_prints_its_table(result: Any) -> None:
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(result)
    assert result.summary.splitlines()[0] in console.export_text()


def test_printed_it_is_a_table(result: Any) -> None:
    assert str(result) == repr(result)
    assert "inner" in str(result)

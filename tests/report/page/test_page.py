"""Tests of the page as a file: whole, without a request to anywhere, with its data as JSON that nothing can break out of."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toys import checkpointed, spread

import hookline
from hookline import Run
from hookline.errors import StoreError
from hookline.record.merge import merged
from hookline.report.diff_table import diff_html
from hookline.report.page.build import number
from hookline.report.profile_table import profile_html

EVIL = "</script><img src=x onerror=alert(1)>&<!--"


def recorded(module: nn.Module, **settings: Any) -> Run:
    with hookline.watch(module, **settings) as run:
        module(torch.ones(1, 4))
    return run


def written(run: Any, folder: Path) -> str:
    run.page(folder / "page.html")
    return (folder / "page.html").read_text()


def data_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="hookline-data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    document: dict[str, Any] = json.loads(found[1])
    return document


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU())


@pytest.fixture
def run(model: nn.Module) -> Run:
    return recorded(model)


@pytest.fixture
def results(model: nn.Module) -> dict[str, Any]:
    x = torch.ones(2, 4)
    return {
        "run": recorded(model),
        "check": hookline.check(model, x),
        "diff": hookline.diff(model, nn.Sequential(nn.Linear(4, 4), nn.ReLU()), x),
        "profile": hookline.profile(model, x, repeat=1),
    }


@pytest.mark.parametrize("kind", ["run", "check", "diff", "profile"])
def test_a_page_holds_its_data_as_json_in_one_script_tag(kind: str, results: dict[str, Any], tmp_path: Path) -> None:
    data = data_of(written(results[kind], tmp_path))

    assert (data["format"], data["version"], data["kind"]) == ("hookline page", 1, kind)
    assert len(data["calls"]) == 3
    assert all(len(row) == len(data["columns"]["call"]) for row in data["calls"])


@pytest.mark.parametrize("kind", ["run", "check", "diff", "profile"])
def test_a_page_refers_to_nothing_outside_of_it(kind: str, results: dict[str, Any], tmp_path: Path) -> None:
    html = written(results[kind], tmp_path)

    links = re.findall(r"""(?:src|href|url|@import)\s*[=(]\s*["']?([^"'\s>)]+)""", html)
    assert [link for link in links if not link.startswith(("#", "${"))] == []
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_names_cannot_break_out_of_the_data_or_become_html(tmp_path: Path) -> None:
    evil = type(EVIL, (nn.ReLU,), {})()
    html = written(recorded(nn.ModuleDict({EVIL: evil})[EVIL]), tmp_path)

    assert "<img" not in html
    assert EVIL in data_of(html)["names"]


def test_a_page_is_written_whole_or_not_at_all(run: Run, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        run.page(tmp_path / "no such folder" / "page.html")

    assert [*tmp_path.iterdir()] == []


def test_a_notebook_shows_the_same_page_in_a_frame_of_its_own(run: Run) -> None:
    html = run._repr_html_()

    assert html.startswith('<iframe title="hookline: Sequential" sandbox="allow-scripts"')
    assert "hookline-data" in html


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1 / 3, 0.333333), (float("nan"), "nan"), (float("-inf"), "-inf"), (12345678.0, 12345700.0), (None, None), (7, 7)],
)
def test_numbers_have_six_digits_and_those_that_are_not_finite_are_text(value: Any, expected: Any) -> None:
    assert number(value) == expected


# Runs


def test_a_call_tells_its_tensors_with_figures_histogram_and_gradient(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    with hookline.watch(model, keep="histogram", grads=True) as run:
        model(torch.randn(8, 4)).sum().backward()
    data = data_of(written(run, tmp_path))
    call = dict(zip(data["columns"]["call"], data["calls"][0], strict=True))
    name, kind, stats, histogram, grad = call["outputs"][0]

    assert (name, data["kinds"][kind][:2]) == ("", [[8, 2], "float32"])
    assert dict(zip(data["columns"]["stats"], stats, strict=True))["count"] == 16
    assert sum(histogram) == sum(grad[1]) == 16


def test_of_tensors_that_were_kept_themselves_figures_are_made_for_the_page(model: nn.Module, tmp_path: Path) -> None:
    data = data_of(written(recorded(model, keep="copy"), tmp_path))

    (_, _, stats, histogram, *_), *_ = data["calls"][0][-1]
    assert stats[0] == sum(histogram) == 4


def test_a_tensor_that_was_changed_since_has_no_figures(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))

    data = data_of(written(recorded(model, keep="tensor"), tmp_path))

    assert len(data["calls"][1][-1][0]) == 2


def test_the_call_that_raised_is_marked(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 4))
    with pytest.raises(RuntimeError), hookline.watch(model) as run:
        model(torch.ones(1, 4))

    (mark,) = data_of(written(run, tmp_path))["marks"]
    assert (mark["level"], mark["path"], mark["call"]) == ("error", "1", 2)


def test_the_innermost_call_that_first_gave_nan_is_marked(tmp_path: Path) -> None:
    class Root(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x - 2).sqrt()

    (mark,) = data_of(written(recorded(nn.Sequential(nn.Identity(), Root(), nn.Identity())), tmp_path))["marks"]
    assert (mark["level"], mark["path"]) == ("warning", "1")
    assert mark["text"] == "the first output with NaN or Inf: 4 NaN"


def test_calls_tell_whether_a_backward_pass_made_them(tmp_path: Path) -> None:
    data = data_of(written(checkpointed(), tmp_path))

    assert [row[data["columns"]["call"].index("recompute")] for row in data["calls"]] == [False, True]


def output_of(data: dict[str, Any]) -> dict[str, Any]:
    """The first tensor that the first call gave, with what is known of its kind by name."""
    tensor = dict(zip(data["columns"]["tensor"], data["calls"][0][-1][0], strict=False))
    return tensor | dict(zip(data["columns"]["kind"], data["kinds"][tensor["kind"]], strict=False))


def test_a_distributed_tensor_tells_how_it_lies_and_what_of_it_was_here(tmp_path: Path) -> None:
    output = output_of(data_of(written(spread(), tmp_path)))

    assert (output["shape"], output["placement"], output["local_shape"]) == ([6, 2], ["Shard(0)"], [3, 2])


def test_a_gradient_may_lie_in_another_way_than_its_tensor(tmp_path: Path) -> None:
    data = data_of(written(spread(), tmp_path))
    _, _, kind = output_of(data)["grad"]

    assert dict(zip(data["columns"]["kind"], data["kinds"][kind], strict=True))["placement"] == ["Partial(sum)"]


def test_tensor_of_a_gathered_run_has_placement_but_no_process(tmp_path: Path) -> None:
    output = output_of(data_of(written(merged([spread(0), spread(1)]), tmp_path)))

    assert output["placement"] == ["Shard(0)"]
    assert "local_shape" not in output


def test_any_other_tensor_says_nothing_of_that(run: Run, tmp_path: Path) -> None:
    data = data_of(written(run, tmp_path))

    assert {len(kind) for kind in data["kinds"]} == {4}


# Findings


def test_a_finding_leads_to_its_call(model: nn.Module, tmp_path: Path) -> None:
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    data = data_of(written(hookline.check(model, torch.ones(2, 4)), tmp_path))

    assert data["marks"][0]["rule"] == "nonfinite-parameter"
    assert data["marks"][0]["call"] == 1
    assert "advice" in data["marks"][0]


def test_a_finding_of_a_module_that_was_not_called_leads_nowhere(tmp_path: Path) -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> Any:
            return self.used(x)

    marks = data_of(written(hookline.check(Unused(), torch.ones(2, 4)), tmp_path))["marks"]

    assert [(mark["path"], mark["call"]) for mark in marks if mark.get("path") == "spare"] == [("spare", None)]


# Diffs and profiles


def test_the_culprit_is_marked_first(model: nn.Module, tmp_path: Path) -> None:
    other = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    data = data_of(written(hookline.diff(model, other, torch.ones(2, 4)), tmp_path))

    assert (data["marks"][0]["level"], data["marks"][0]["path"]) == ("culprit", "0")


def test_the_costliest_modules_are_marked(model: nn.Module, tmp_path: Path) -> None:
    marks = data_of(written(hookline.profile(model, torch.ones(2, 4), repeat=1), tmp_path))["marks"]

    assert {mark["level"] for mark in marks} == {"costly"}
    assert marks[0]["text"].endswith(")")


def test_the_share_of_a_costly_module_is_that_of_the_terminal(model: nn.Module, tmp_path: Path) -> None:
    profile = hookline.profile(model, torch.ones(2, 4), repeat=1)
    marks = data_of(written(profile, tmp_path))["marks"]

    shares = {row.path: row.seconds_self / profile.total.seconds for row in profile.by_path()}
    assert [mark["text"].split()[0] for mark in marks] == [f"{shares[mark.get('path', '')]:.0%}" for mark in marks]


def test_a_profile_without_times_marks_by_flops(model: nn.Module, tmp_path: Path) -> None:
    data = data_of(written(hookline.profile(model, torch.ones(2, 4), meta=True), tmp_path))

    assert not data["timed"]
    assert data["marks"][0]["text"].startswith("100% self FLOPs")


def test_a_page_grows_by_as_much_for_each_call(tmp_path: Path) -> None:
    def size_of(calls: int) -> int:
        model = nn.ReLU()
        with hookline.watch(model) as run:
            for _ in range(calls):
                model(torch.arange(12.0))
        return len(written(run, tmp_path))

    small, large, largest = size_of(10), size_of(1010), size_of(4010)

    assert (largest - small) / 4000 == pytest.approx((large - small) / 1000, rel=0.1)
    assert (largest - small) / 4000 < 400


def test_the_plain_table_of_a_profile_and_of_a_diff_has_every_row() -> None:
    model, x = nn.Sequential(*(nn.Identity() for _ in range(450))), torch.ones(1)
    other = nn.Sequential(nn.ReLU6(), *(nn.Identity() for _ in range(449)))

    assert profile_html(hookline.profile(model, x, meta=True, backward=False)).count("<tr>") == 1 + 451
    assert diff_html(hookline.diff(model, other, x * 9)).count("<tr>") == 1 + 451

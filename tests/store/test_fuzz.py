"""Tests that a document with any member made wrong is refused when it is loaded, or reads as any other does."""

import json
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from store.fuzz import mutations
from torch import nn

import hookline
import hookline.testing
from hookline import CompareError, StoreError, edits
from hookline.report.page import page
from hookline.report.page.diff_page import diff_document
from hookline.report.page.run_page import run_document
from hookline.report.trace import run_events


def saved_run(folder: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2))

    def keep(tensor: torch.Tensor) -> Any:
        return {"fingerprint": hookline.fingerprint(tensor), "pair": (1, [2.5, 1j, float("inf")])}

    with hookline.watch(model, keep=keep, inputs="histogram", grads=True) as run:
        model(torch.ones(1, 2)).sum().backward()
    run.save(folder)


def saved_fingerprints(folder: Path) -> None:
    model = nn.Sequential(nn.ReLU())
    with hookline.watch(model, keep=hookline.fingerprint) as run:
        model(torch.ones(1, 2))
    run.save(folder)


def saved_ranks(folder: Path) -> None:
    """A gathered run of one rank, of a distributed tensor."""
    saved_fingerprints(folder)
    document = json.loads((folder / "run.json").read_text())
    head = {name: document.pop(name) for name in ("format", "version")}
    document["calls"][1]["output"]["part"] = {
        **{"shape": [1, 2], "placement": ["Shard(0)", "Replicate()"]},
        **{"mesh": [1, 1], "ranks": [0], "place": [0, 0]},
    }
    (folder / "run.json").write_text(json.dumps({**head, "ranks": [document, document]}))


def use_run(folder: Path) -> None:
    run = hookline.load(folder)
    repr(run)
    page(run_document(run), run._repr_html_())
    json.dumps([*run_events(run)])
    run.to_pandas()
    _ = run.never_called, run.seconds, [*map(repr, run)]
    hookline.check(run)
    if run.calls:  # two runs without a call in common cannot be compared, and say so
        repr(hookline.diff(run, run))
        with suppress(CompareError):
            repr(hookline.diff(run, hookline.load(folder.with_name("valid"))))


def saved_diff(folder: Path) -> None:
    models = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    hookline.diff(*models, torch.ones(1, 2), grads=True).save(folder)


def use_diff(folder: Path) -> None:
    diff = hookline.load(folder)
    repr(diff)
    page(diff_document(diff), diff._repr_html_())
    json.dumps(diff.to_dict())
    diff.to_pandas()
    _ = diff.first, diff.culprits, [*map(str, diff)], [*map(str, diff.weights)]


def saved_edit(folder: Path) -> None:
    run = hookline.testing.recorded(hookline.testing.toy(), torch.ones(1, 4), keep="copy")
    change = edits.add(torch.nn.Parameter(torch.ones(2)), 2.0) >> edits.swap([0], [1]) >> edits.clamp(min=0.0)
    edits.save(change >> edits.mean(run, over=(0, 1)) >> edits.noise(1.0), folder)


def use_edit(folder: Path) -> None:
    change = edits.load(folder)
    repr(change)
    hash(change)
    _ = change == change, change.parameters()


def swept(folder: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    [nn.init.ones_(parameter) for parameter in model.parameters()]
    inputs = [torch.ones(1, 2)]
    found = hookline.sweep(model, "**", edits.zero(), lambda output, _: output.sum(), inputs, save=folder)
    repr(found)
    found._repr_html_()


def saved_findings(folder: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    nn.init.constant_(model[0].weight, float("nan"))
    hookline.check(model, torch.ones(1, 2)).save(folder)


def saved_profile(folder: Path) -> None:
    hookline.profile(nn.Sequential(nn.Linear(2, 2)), torch.ones(1, 2), repeat=1).save(folder)


def saved_hooks(folder: Path) -> None:
    model = nn.Sequential(nn.ReLU())
    model[0].register_forward_hook(print)
    hookline.hooks(model).save(folder)


def use_result(folder: Path) -> None:
    found = hookline.load(folder)
    _ = repr(found), found._repr_html_(), found.to_json(), found.to_pandas(), [*map(repr, found)], bool(found)
    found.page(folder.with_name("page.html"))


def use_profile(folder: Path) -> None:
    use_result(folder)
    profile = hookline.load(folder)
    profile.collapsed(folder.with_name("stacks.txt"))
    if profile.spans:
        profile.perfetto(folder.with_name("trace.json"))


STRIDE = 5  # of 19 wrong values each member gets another four
CASES: dict[str, tuple[str, Callable[[Path], None], Callable[[Path], None]]] = {
    "run": ("run", saved_run, use_run),
    "fingerprints": ("run", saved_fingerprints, use_run),
    "gathered": ("run", saved_ranks, use_run),
    "diff": ("diff", saved_diff, use_diff),
    "findings": ("findings", saved_findings, use_result),
    "profile": ("profile", saved_profile, use_profile),
    "hooks": ("hooks", saved_hooks, use_result),
    "swept": ("sweep", swept, use_result),
    "edit": ("edit", saved_edit, use_edit),
    "sweep": ("sweep", swept, swept),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_wrong_member_is_refused_at_load_or_does_no_harm(tmp_path: Path, case: str) -> None:
    kind, save, use = CASES[case]
    save(tmp_path / "valid")
    save(tmp_path / "other")
    file = tmp_path / "other" / f"{kind}.json"
    valid = file.read_text()
    use(tmp_path / "other")
    for wrong, document in islice(mutations(json.loads(valid)), 0, None, STRIDE):
        file.write_text(json.dumps(document))
        told = str(refused(wrong, use, tmp_path / "other") or tmp_path / "other")
        assert str(tmp_path / "other") in told, wrong
        assert "\n" not in told, wrong


def refused(wrong: str, use: Callable[[Path], None], folder: Path) -> StoreError | None:
    """The error that names the file; any other ends the test, with a note on what is wrong."""
    try:
        use(folder)
    except StoreError as error:
        return error
    except Exception as error:
        error.add_note(wrong)
        raise
    return None

"""Make the pages of a run, a check, a diff and a profile of the demo model, and pictures of them in light and dark."""

from __future__ import annotations

import argparse
import copy
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

import hookline
import hookline.demo

ROOT = Path(__file__).parent.parent
WIDE, HIGH = 1200, 760  # pixels
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def results() -> dict[str, Any]:
    """A result of each kind that has a page: of the demo model, with faults planted for the check and the diff."""
    model = hookline.demo.model()
    images, labels = hookline.demo.digits()
    batch, wanted = images[:32], labels[:32]

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return cross_entropy(logits, wanted)

    loss(model(batch))  # the first call is slower than any other
    with hookline.watch(model, keep="histogram", grads=True) as run:
        loss(model(batch)).backward()  # type: ignore[no-untyped-call]

    broken, port = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        broken.block.norm.bias.fill_(-20)
        broken.attention.value.weight[0, 0] = torch.nan
    port.norm.eps = 1e-2
    return {
        "run": run,
        "check": hookline.check(broken, batch, loss=loss),
        "diff": hookline.diff(model, port, batch),
        "profile": hookline.profile(model, batch, loss=loss),
    }


def photograph(folder: Path) -> None:
    """A picture of every page in the folder, in both themes, beside it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for theme in ("light", "dark"):
            view = browser.new_page(viewport={"width": WIDE, "height": HIGH}, color_scheme=theme)
            for page in sorted(folder.glob("*.html")):
                view.goto(page.resolve().as_uri())
                view.wait_for_selector(".tree .body .row")
                view.screenshot(path=folder / f"{page.stem}-{theme}.png")
        browser.close()


def main() -> None:
    """Make them all; without a chromium the pages alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=ROOT / "out" / "pictures", help="a folder, which is made anew")
    folder = parser.parse_args().into
    torch.set_num_threads(1)  # so that threads do not wait for each other on a machine that does other things too

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, result in results().items():
        result.page(folder / f"{name}.html")

    if CHROMIUM is None:
        print("no chromium on this machine: the pictures are those that are checked in", file=sys.stderr)
    else:
        photograph(folder)


if __name__ == "__main__":
    main()

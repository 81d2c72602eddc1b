"""How long does a page of 20,000 calls take to open? Under 2 s; compared with a page of 1,000 calls."""

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import hookline
from benchmarks.ratios import Row

MOST = 2.0
ROUNDS = 7
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def rows() -> list[Row]:
    """Both pages, each in a new tab, interleaved: seconds until the rows are drawn. Empty without chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("no chromium: opening a page is not measured")
        return []
    with tempfile.TemporaryDirectory() as folder:
        return [opening(chromium, *(written(Path(folder) / f"{calls}.html", calls) for calls in (20_000, 1_000)))]


def written(path: Path, calls: int) -> Path:
    """The page of a run of this many calls of small layers, with histograms and gradients."""
    model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.GELU()) for _ in range(50)))
    with hookline.watch(model, keep="histogram", grads=True) as run:
        while len(run) < calls:
            model(torch.randn(4, 8)).sum().backward()
    run.page(path)
    return path


def opening(chromium: str, large: Path, small: Path) -> Row:
    """Seconds to open both."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        pairs = [(seconds_to_open(browser, large), seconds_to_open(browser, small)) for _ in range(ROUNDS)]
        browser.close()
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    what, goal = f"opening 20,000 calls: {ours:.2f} s", f"≤{MOST / theirs:.2f}"
    return Row(what, "opening 1,000", ours, theirs, ours / theirs, goal)


def seconds_to_open(browser: Any, page: Path) -> float:
    """Seconds from the request of the page until its rows are there."""
    tab = browser.new_page()
    begin = time.perf_counter()
    tab.goto(page.as_uri())
    tab.wait_for_selector(".tree .body .row")
    seconds = time.perf_counter() - begin
    tab.close()
    return seconds

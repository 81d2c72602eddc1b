"""A browser for the tests of the page: Debian's chromium, driven by Playwright. Without one the tests here are skipped,
except where CI says that they must run."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hookline

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SCREENSHOTS = Path(os.environ.get("HOOKLINE_SCREENSHOTS", "out/screenshots"))
EVIL = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")  # while it is open an event loop runs in this process
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    missing = [name for name, found in (("playwright", sync_playwright), ("chromium", CHROMIUM)) if not found]
    if missing and os.environ.get("CI"):
        pytest.fail(f"CI must run the browser tests, and has no {' and no '.join(missing)}")
    if missing:
        pytest.skip(f"no {' and no '.join(missing)} on this machine")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens the page of a result; at the end nothing has been said on its console, and nothing but itself was asked
    for."""
    said: list[str] = []
    asked: list[str] = []
    contexts: list[Any] = []

    def open_page(result: Any, *, wide: int = 1366, high: int = 900, hash: str = "", **settings: Any) -> Any:
        file = tmp_path / f"page-{len(contexts)}.html"
        result.page(file)
        context = browser.new_context(viewport={"width": wide, "height": high}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri() + hash)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert all(url.startswith("file://") for url in asked)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.query(x) @ self.key(x).transpose(-1, -2)
        return x + self.norm(scores.softmax(-1) @ self.value(x))


def network() -> nn.Module:
    """Three layers of attention, with a name among them that looks like HTML."""
    torch.manual_seed(0)
    layers = nn.Sequential(*(Attention() for _ in range(3)))
    return nn.Sequential(nn.ModuleDict({EVIL: layers})[EVIL], nn.Linear(8, 2))


def with_even_times(run: hookline.Run) -> None:
    """Each call takes a millisecond and what is inside it, so that pictures of time are always the same."""
    for call in reversed(run.calls):
        call.began = call.number * 1e-3
        call.seconds = 1e-3 + sum(inside.seconds for inside in run.children(call))


@pytest.fixture(scope="session")
def model() -> nn.Module:
    return network()


@pytest.fixture(scope="session")
def results(model: nn.Module) -> dict[str, Any]:
    """A result of each kind that has a page."""
    x = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0))
    with hookline.watch(model, keep="histogram", grads="input") as run:
        model(x).square().sum().backward()
    with_even_times(run)
    broken, port = network(), network()
    with torch.no_grad():
        broken[0][1].value.weight[0, 0] = torch.nan
        port[0][2].value.weight.mul_(1.01)
    port[0][1].norm.eps = 0.01
    return {
        "run": run,
        "check": hookline.check(broken, x),
        "diff": hookline.diff(model, port, x, grads=True),
        "profile": hookline.profile(model, x, repeat=2),
    }


@pytest.fixture(scope="session")
def run(results: dict[str, Any]) -> Any:
    return results["run"]

"""Tests of the page of a training run, in a browser."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import hookline
from hookline import alerts

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def run() -> hookline.Monitor:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    ignore: Any = lambda finding: None  # noqa: E731
    with hookline.monitor(model, optimizer, every=1, alert=alerts.jump("rms", 10), then=ignore) as monitor:
        for step in range(60):
            optimizer.zero_grad()
            model(torch.randn(8, 4) * (1000 if step == 40 else 1)).square().mean().backward()
            optimizer.step()
    return monitor


Opened = Callable[..., Any]


def paths(page: Any) -> list[str]:
    return page.locator(".heat-path").all_text_contents()


def test_heat_map_has_a_row_for_each_layer(opened: Opened, run: hookline.Monitor) -> None:
    assert paths(opened(run)) == ["(the model)", "0", "1", "2"]


def test_choosing_of_and_figure_changes_the_rows(opened: Opened, run: hookline.Monitor) -> None:
    page = opened(run)
    page.select_option("#of", "weight")
    assert paths(page) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    page.select_option("#figure", "absmax")
    assert "weight absmax by layer and step" in page.locator("#heat-title").text_content()


def test_row_that_is_chosen_is_drawn_as_a_line(opened: Opened, run: hookline.Monitor) -> None:
    page = opened(run)
    assert page.locator(".course .median").count() == 1
    page.click("#row-1")
    assert page.locator(".course-line").count() == 1
    assert page.locator("#legend li").all_text_contents() == ["0"]
    page.click("#row-1")
    assert page.locator(".course .median").count() == 1


def test_rows_are_chosen_by_keys(opened: Opened, run: hookline.Monitor) -> None:
    page = opened(run)
    page.focus("#heat")
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    assert page.locator('[aria-selected="true"] .heat-path').all_text_contents() == ["1"]


def test_alert_is_a_mark_that_leads_to_its_step(opened: Opened, run: hookline.Monitor) -> None:
    page = opened(run)
    assert page.locator(".course .alert").count() == len(run.alerts)
    link = page.locator("#marks-list a.where").first
    assert link.text_content() == "step 40: 0"
    link.click()
    assert page.locator(".course").get_attribute("aria-label").startswith("output rms of 0, steps 30 to 50")


def test_drag_zooms_and_escape_shows_the_whole_run(opened: Opened, run: hookline.Monitor) -> None:
    page = opened(run)
    box = page.locator(".course").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 100)
    page.mouse.up()
    label = page.locator(".course").get_attribute("aria-label")
    assert "steps 0 to 59" not in label
    page.keyboard.press("Escape")
    assert "steps 0 to 59" in page.locator(".course").get_attribute("aria-label")


def test_page_that_loads_again_stays_as_it_was(opened: Opened, run: hookline.Monitor) -> None:
    page = opened(run)
    page.select_option("#of", "grad")
    page.click("#row-2")
    page.reload()
    assert page.locator("#of").input_value() == "grad"
    assert page.locator("#legend li").all_text_contents() == ["1"]


def test_search_shows_matching_rows(opened: Opened, run: hookline.Monitor) -> None:
    page = opened(run)
    page.select_option("#of", "weight")
    page.fill("#search", "bias")
    assert paths(page) == ["0.bias", "2.bias"]
    assert page.locator("#found").text_content() == "2 of 4"


def test_pointer_says_step_and_values(opened: Opened, run: hookline.Monitor) -> None:
    page = opened(run)
    page.click("#row-1")
    box = page.locator(".course").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 100)
    assert page.locator("#said").text_content().startswith("step ")


def test_page_has_no_accessibility_fault(opened: Opened, run: hookline.Monitor) -> None:
    pytest.importorskip("axe_playwright_python")
    from axe_playwright_python.sync_playwright import Axe

    for scheme in ("light", "dark"):
        found = Axe().run(opened(run, color_scheme=scheme))
        assert found.violations_count == 0, found.generate_report()


def test_notebook_shows_the_page(run: hookline.Monitor) -> None:
    assert "<iframe" in run._repr_html_()


def test_page_without_a_sample_says_so(opened: Opened) -> None:
    with hookline.monitor(nn.Linear(1, 1)) as monitor:
        page = opened(monitor)
    assert "no step yet" in page.locator(".summary").first.text_content()

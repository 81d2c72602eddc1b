"""Tests of the page in a browser, as a person uses it: by eye, by mouse, by keyboard, with and without JavaScript."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toys import Gives, checkpointed, spread

import hookline
from hookline.model.select import glob_to_regex
from hookline.report import page as pages
from hookline.report.text import call_name, figure, tensor_text

from .conftest import EVIL, SCREENSHOTS, network

pytestmark = pytest.mark.browser

KINDS = ("run", "check", "diff", "profile")
ROWS = ".tree .body .row"
SIZES = {"laptop": (1366, 900), "phone": (390, 844)}


def names(page: Any) -> list[str]:
    """The names in the tree, from the top."""
    rows = page.eval_on_selector_all(
        ROWS, "rows => rows.map(row => [row.offsetTop, row.querySelector('.words').textContent])"
    )
    return [name for _, name in sorted(rows)]


def chosen(page: Any) -> str:
    text: str = page.inner_text("#details .title")
    return text


# Every kind of page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_has_no_fault_of_accessibility(
    opened: Any, results: dict[str, Any], kind: str, size: str, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    wide, high = SIZES[size]
    page = opened(results[kind], wide=wide, high=high, color_scheme=scheme)
    page.wait_for_selector(ROWS)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{kind}-{size}-{scheme}.png", full_page=size == "phone")

    found = Axe().run(page).response["violations"]

    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_no_wider_than_a_phone(opened: Any, results: dict[str, Any], kind: str) -> None:
    page = opened(results[kind], wide=390, high=844)

    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("kind", KINDS)
def test_without_javascript_a_page_is_a_plain_table(opened: Any, results: dict[str, Any], kind: str) -> None:
    page = opened(results[kind], java_script_enabled=False)

    assert page.is_visible(".plain table")
    assert not page.is_visible("#tree")
    assert not page.is_visible("#theme")
    assert page.locator(".plain tr").count() >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_has_a_row_and_details(opened: Any, results: dict[str, Any], kind: str) -> None:
    page = opened(results[kind])
    page.focus(".tree")
    page.keyboard.press("Home")
    count = page.evaluate("Number(document.querySelector('.tree').getAttribute('aria-rowcount')) - 1")

    seen = [chosen(page)]
    for _ in range(count - 1):
        page.keyboard.press("ArrowDown")
        seen.append(chosen(page))

    assert len(set(seen)) == count == 18


# The tree


def test_a_name_that_looks_like_html_is_text(opened: Any) -> None:
    evil = type(EVIL, (nn.ReLU,), {})()
    model = nn.ModuleDict({EVIL: evil, "b": nn.ReLU()})
    with hookline.watch(model) as run:
        model[EVIL](torch.ones(2))

    page = opened(run)

    assert names(page) == [EVIL]
    assert page.inner_text("#details .crumbs") == EVIL
    assert page.locator("img").count() == 0


def test_a_call_is_opened_and_closed_by_its_sign(opened: Any, run: hookline.Run) -> None:
    page = opened(run)
    before = names(page)

    page.click(f"{ROWS}[aria-level='3'] .twist")
    assert len(names(page)) == len(before) - 4

    page.click(f"{ROWS}[aria-level='3'] .twist")
    assert names(page) == before


def test_all_calls_are_closed_and_opened_at_once(opened: Any, run: hookline.Run) -> None:
    page = opened(run)

    page.click("#close-all")
    assert names(page) == ["Sequential"]

    page.click("#open-all")
    assert len(names(page)) == len(run)


def test_the_tree_is_walked_by_keyboard_alone(opened: Any, run: hookline.Run) -> None:
    page = opened(run)
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.className") == "tree"

    page.keyboard.press("Home")
    assert chosen(page) == "(the model)"
    page.keyboard.press("ArrowLeft")
    assert names(page) == ["Sequential"]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert chosen(page) == "0"
    page.keyboard.press("ArrowDown")
    assert chosen(page) == "0.0"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert chosen(page) == "0"
    page.keyboard.press("End")
    assert chosen(page) == "1"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "details"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.className") == "tree"


def test_the_chosen_row_is_told_to_a_screen_reader(opened: Any, run: hookline.Run) -> None:
    page = opened(run)
    page.focus(".tree")
    page.keyboard.press("End")

    row = page.get_attribute(".tree", "aria-activedescendant")
    assert page.get_attribute(f"#{row}", "aria-selected") == "true"
    assert page.locator("[aria-selected=true]").count() == 1


def test_details_show_figures_and_a_histogram_of_each_tensor_and_gradient(opened: Any, run: hookline.Run) -> None:
    page = opened(run, hash="#call-9")
    call = run.calls[9]
    details = page.inner_text("#details")

    assert chosen(page) == call.path
    assert f"mean {figure(call.output.mean)}" in details
    assert f"norm {figure(call.output.grad.norm)}" in details
    assert page.locator("#details .histogram").count() == 3  # of the output, its gradient, and that of the input


def test_row_of_a_recomputed_call_says_so(opened: Any) -> None:
    run = checkpointed()

    rows = opened(run).locator(f"{ROWS} .cell.name").all_text_contents()

    assert rows == [call_name(call) for call in run] == ["Linear", "Linear #1 recomputed"]


def test_details_of_a_call_that_was_made_again_say_why(opened: Any) -> None:
    run = checkpointed()

    assert "recomputed" not in opened(run, hash="#call-0").inner_text("#details")
    assert "under activation checkpointing" in opened(run, hash="#call-1").inner_text("#details")


def test_a_distributed_tensor_stands_in_its_row_as_in_the_terminal(opened: Any) -> None:
    run = spread()

    assert tensor_text(run.calls[0].output) == "6x2 Shard(0)"
    assert "6x2 Shard(0)" in opened(run).locator(ROWS).inner_text()


def test_details_of_a_distributed_tensor_tell_its_part_in_this_process(opened: Any) -> None:
    details = opened(spread()).inner_text("#details")

    assert "output float32 [6, 2] Shard(0), [3, 2] in this process" in details
    assert "its gradient Partial(sum), [3, 2] in this process" in details


# Finding


@pytest.mark.parametrize("glob", ["**.norm", "0.*.query", "0.[02].value", "**", "1"])
def test_search_finds_what_select_selects(opened: Any, model: nn.Module, run: hookline.Run, glob: str) -> None:
    page = opened(run)
    expected = hookline.select(model, glob).paths

    page.fill("#search", glob)

    if "*" in glob or "[" in glob:
        assert page.inner_text("#found") == f"{len(expected)} of 18 calls"
    page.keyboard.press("Enter")
    assert chosen(page) == (expected[0] or "(the model)")


def test_a_part_of_a_path_or_class_is_found_without_a_star(opened: Any, run: hookline.Run) -> None:
    page = opened(run)

    page.fill("#search", "layernorm")

    assert page.inner_text("#found") == "3 of 18 calls"
    assert names(page) == ["Sequential", "0", *[name for place in "012" for name in (place, "norm")]]


def test_enter_goes_from_one_that_was_found_to_the_next(opened: Any, run: hookline.Run) -> None:
    page = opened(run)
    page.fill("#search", "**.norm")

    seen = []
    for _ in range(4):
        page.press("#search", "Enter")
        seen.append(chosen(page))
    page.press("#search", "Shift+Enter")

    assert seen == ["0.0.norm", "0.1.norm", "0.2.norm", "0.0.norm"]
    assert chosen(page) == "0.2.norm"


def test_a_search_that_finds_nothing_says_so_and_escape_shows_all_again(opened: Any, run: hookline.Run) -> None:
    page = opened(run)
    page.fill("#search", "no such thing")
    assert page.inner_text("#found") == "0 of 18 calls"
    assert names(page) == []

    page.press("#search", "Escape")
    assert len(names(page)) == 18


def test_a_broken_glob_is_told(opened: Any, run: hookline.Run) -> None:
    page = opened(run)

    page.fill("#search", "[9-0]")

    assert page.inner_text("#found") == "this is not a glob"


class Empty(nn.Module):
    """Gives tensors without an element, whose figures are all NaN."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:0]


def test_a_tensor_without_elements_has_a_row_like_any_other(opened: Any) -> None:
    model = nn.Sequential(nn.ReLU(), Empty())
    with hookline.watch(model, keep="histogram") as run:
        model(torch.ones(2, 3))

    page = opened(run, hash="#call-2")

    assert names(page) == ["Sequential", "0", "1"]
    assert "%" not in page.inner_text(f"{ROWS}.chosen")
    assert page.locator(f"{ROWS}.chosen .size").count() <= 1  # of its time alone


def test_the_largest_of_what_is_infinite_has_no_sign_as_in_the_terminal(opened: Any) -> None:
    model = nn.Identity()
    with hookline.watch(model) as run:
        model(torch.tensor([-torch.inf, 1.0]))

    page = opened(run)

    assert "absmax inf" in page.inner_text("#details .figures")
    assert run[""].output.absmax == torch.inf


def test_the_chosen_row_is_seen_in_the_colours_of_the_system(opened: Any, run: hookline.Run) -> None:
    page = opened(run, forced_colors="active")

    assert page.eval_on_selector(f"{ROWS}.chosen", "row => getComputedStyle(row).outlineStyle") == "solid"


def test_details_that_are_scrolled_are_reached_by_tab(opened: Any, run: hookline.Run) -> None:
    page = opened(run)
    page.focus(".tree")

    page.keyboard.press("Tab")

    assert page.evaluate("document.activeElement.id") == "details"


def test_hidden_call_passes_the_choice_to_the_call_around_it(opened: Any, run: hookline.Run) -> None:
    page = opened(run, hash="#call-3")
    assert chosen(page) != "(the model)"

    page.click("#close-all")

    assert chosen(page) == "(the model)"
    assert page.locator(f"{ROWS}.chosen").count() == 1


def test_a_link_to_a_call_that_is_not_meant_ends_the_search(opened: Any, results: dict[str, Any]) -> None:
    page = opened(results["diff"])
    page.fill("#search", "query")

    page.locator(".mark a").first.click()

    assert page.input_value("#search") == page.inner_text("#found") == ""


# Pictures


def test_a_picture_tells_about_the_call_under_the_pointer(opened: Any, run: hookline.Run) -> None:
    page = opened(run)
    box = page.locator("#flow svg.picture").bounding_box()

    page.mouse.move(box["x"] + box["width"] - 14, box["y"] + 80)

    output = run["1"].output
    assert page.inner_text("#flow .tip").splitlines() == [
        "1 · Linear",
        f"rms of the output {figure(output.norm / output.stats.count**0.5)}",
        f"gradient norm {figure(output.grad.norm)}",
    ]


@pytest.mark.parametrize("picture", ["flow", "flame"])
def test_a_click_on_a_picture_goes_to_the_call(opened: Any, run: hookline.Run, picture: str) -> None:
    page = opened(run)
    page.click("#close-all")
    box = page.locator(f"#{picture} svg.picture").bounding_box()

    page.mouse.click(box["x"] + box["width"] * 0.6, box["y"] + (box["height"] - 10 if picture == "flame" else 50))

    assert chosen(page).startswith("0.")
    assert page.locator(f"{ROWS}.chosen").is_visible()


@pytest.mark.parametrize("picture", ["flow", "flame"])
def test_a_picture_is_read_by_keyboard(opened: Any, run: hookline.Run, picture: str) -> None:
    page = opened(run)
    page.focus(f"#{picture} svg.picture")

    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    told = page.inner_text(f"#{picture} .tip").split(" · ")[0]
    page.keyboard.press("Enter")

    assert told
    assert chosen(page) == told


def test_the_flame_zooms_to_the_chosen_call_and_back(opened: Any, run: hookline.Run) -> None:
    page = opened(run, hash="#call-2")
    width = "() => Math.max(...[...document.querySelectorAll('#flame rect.chosen')].map(r => r.getBBox().width))"
    before = page.evaluate(width)

    page.click("text=Zoom to chosen")
    assert page.evaluate(width) > before * 1.5

    page.click("text=Whole")
    assert page.evaluate(width) == pytest.approx(before, abs=1)


def test_a_profile_shows_forward_and_backward(opened: Any, results: dict[str, Any]) -> None:
    page = opened(results["profile"])

    assert page.locator("#flame svg > text").all_text_contents() == ["forward", "backward"]


def test_the_time_of_calls_that_were_made_again_is_no_part_of_the_forward(opened: Any) -> None:
    page = opened(checkpointed())

    assert page.locator("#flame svg > text").all_text_contents() == ["forward", "recomputed"]
    assert page.locator("#flame svg rect").count() == 3  # one in each half, and the outline of the chosen one


def test_a_diff_names_its_culprits_in_the_picture(opened: Any, results: dict[str, Any]) -> None:
    page = opened(results["diff"])

    assert page.locator("#flow .culprit-word").all_text_contents() == ["◆ 0.1.norm", "◆ 0.2.value"]


def test_a_call_that_is_nan_on_one_side_is_a_cross_in_the_picture(opened: Any, model: nn.Module) -> None:
    broken = network()
    with torch.no_grad():
        broken[0][1].value.weight.fill_(torch.nan)

    page = opened(hookline.diff(model, broken, torch.randn(4, 5, 8)))
    page.hover("#flow svg.picture", position={"x": 1200, "y": 80})

    assert page.inner_text("#flow .tip").endswith("nan")
    assert page.locator("#flow .cross").count() == 1


def test_calls_that_give_nan_on_both_sides_are_no_cross_in_the_picture(opened: Any) -> None:
    one, other = (nn.Sequential(Gives(lambda x: x * torch.nan), Empty(), Gives(lambda x: x)) for _ in range(2))

    page = opened(hookline.diff(one, other, torch.ones(2, 3)))

    assert page.locator("#flow .cross").count() == 0


def test_the_figures_of_a_difference_have_the_names_of_the_columns(opened: Any, results: dict[str, Any]) -> None:
    page = opened(results["diff"])
    columns = page.locator("[role=columnheader]").all_inner_texts()

    figures = page.locator("#details .tensor .figures").first.locator("span").all_inner_texts()

    assert [name.strip() for name in figures][:5] == columns[2:7]


@pytest.mark.parametrize(("factor", "ticks"), [(1, ["1"]), (1000, ["1000"])])
def test_round_numbers_beside_a_picture_have_no_exponent(opened: Any, factor: int, ticks: list[str]) -> None:
    model = nn.ReLU()
    with hookline.watch(model) as run:
        model(torch.full((2,), float(factor)))

    page = opened(run)

    assert page.locator("#flow text[text-anchor=end]").all_text_contents()[: len(ticks)] == ticks


@pytest.mark.parametrize("kind", ["run", "profile"])
def test_a_deep_call_still_has_its_name_on_a_phone(opened: Any, kind: str) -> None:
    model: nn.Module = nn.Linear(2, 2)
    for _ in range(30):
        model = nn.Sequential(model)
    with hookline.watch(model) as run:
        model(torch.ones(1, 2))
    result = run if kind == "run" else hookline.profile(model, torch.ones(1, 2), repeat=1)

    page = opened(result, wide=390, high=844, hash="#call-30")

    assert page.locator(f"{ROWS}.chosen .words").bounding_box()["width"] > 5


# Findings and links


def test_a_finding_leads_to_its_call(opened: Any, results: dict[str, Any]) -> None:
    page = opened(results["check"])
    page.click("#close-all")

    page.click("#marks-list a")

    assert chosen(page) == "0.1.value"
    assert "✖ error" in page.inner_text(f"{ROWS}.chosen")
    assert "nonfinite-parameter" in page.inner_text("#details")


def test_the_same_link_leads_there_again(opened: Any, results: dict[str, Any]) -> None:
    page = opened(results["check"])
    page.click("#marks-list a")
    page.focus(".tree")
    page.keyboard.press("Home")

    page.click("#marks-list a")

    assert chosen(page) == "0.1.value"


def test_the_call_around_is_a_link(opened: Any, run: hookline.Run) -> None:
    page = opened(run, hash="#call-4")

    page.click("#details .crumbs a")

    assert chosen(page) == "0.0"


# Light and dark, paper, notebooks, size


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_other_theme_can_be_chosen(opened: Any, run: hookline.Run, scheme: str) -> None:
    page = opened(run, color_scheme=scheme)
    back = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(back)

    page.click("#theme")

    assert page.evaluate(back) != before


def test_paper_shows_every_row_in_order(opened: Any) -> None:
    model = nn.Sequential(*(nn.Identity() for _ in range(200)))
    with hookline.watch(model) as run:
        model(torch.ones(1))
    page = opened(run)
    page.evaluate("document.querySelector('.tree').scrollTop = 2000")

    page.evaluate("dispatchEvent(new Event('beforeprint'))")

    assert page.locator(f"{ROWS} .words").all_inner_texts() == ["Sequential", *map(str, range(200))]


def test_only_the_rows_in_sight_are_in_the_page(opened: Any) -> None:
    model = nn.ReLU()
    with hookline.watch(model, keep="shape") as run:
        for _ in range(5000):
            model(torch.ones(1))
    page = opened(run)

    page.focus(".tree")
    page.keyboard.press("End")

    assert chosen(page) == "(the model) #4999"
    assert page.locator(ROWS).count() < 100


def test_a_notebook_shows_the_page_in_its_frame(browser: Any, run: hookline.Run) -> None:
    page = browser.new_page()
    page.set_content(f"<p>In [1]:</p>{run._repr_html_()}")
    frame = page.frame_locator("iframe")

    frame.locator(ROWS).first.wait_for()
    frame.locator("#search").fill("**.norm")

    assert frame.locator("#found").inner_text() == "3 of 18 calls"
    page.close()


# What is written twice, in Python and in JavaScript


def script(page: Any, name: str) -> None:
    page.add_script_tag(content=(Path(pages.__file__).parent / f"{name}.js").read_text())


def test_figures_are_those_of_the_terminal(browser: Any) -> None:
    page = browser.new_page()
    script(page, "figures")
    values = [
        *torch.logspace(-9, 9, 400, dtype=torch.float64).mul(1.2345678).tolist(),
        0.0,
        1.0,
        9999.5,
        99999.0,
        0.00012345,
        1e-5,
        -2.5,
        1234.0,
    ]

    assert page.evaluate("values => values.map((value) => figure(value))", values) == [*map(figure, values)]
    page.close()


GLOBS = [
    "**",
    "*",
    "a.*",
    "a.**",
    "**.b",
    "a.**.b",
    "a?",
    "a.[bc]",
    "a.[!b]",
    "*b*",
    "",
    "a.b",
    "**.**",
    "a+.*",
    "[a-c].b",
    "a.**.c.**",
    "(a)*",
]
PATHS = ["", "a", "b", "ab", "a.b", "a.c", "a.b.c", "a.x.y.b", "a.x.c.d", "aa.b", "a+.b", "(a).b", "a.bb", "c.b"]


def test_globs_mean_what_they_mean_to_select(browser: Any) -> None:
    page = browser.new_page()
    script(page, "glob")
    asked = [[glob, path] for glob in GLOBS for path in PATHS]

    found: list[bool] = page.evaluate("asked => asked.map(([glob, path]) => globToRegExp(glob).test(path))", asked)

    assert found == [glob_to_regex(glob).fullmatch(path) is not None for glob, path in asked]
    page.close()


def test_calls_that_rounding_explains_are_not_drawn_as_different(opened: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 8))
    found = hookline.diff(model, copy.deepcopy(model).bfloat16(), torch.randn(8, 16))
    assert found.rounded
    page = opened(found)
    page.click("#open-all")
    page.click(f"#row-{found.rounded[-1].number}")

    assert page.query_selector(".row.differs") is None
    assert page.query_selector_all(".row.excused")
    assert "≈ explained by rounding" in page.inner_text(f"#row-{found.rounded[-1].number}")
    assert "≠ differs" not in page.inner_text("#details")
    assert "≈ explained by rounding" in page.inner_text("#legend")


class Narrows(nn.Module):
    """Gives its child all positions, or the last alone, and returns the last."""

    def __init__(self, *, early: bool) -> None:
        super().__init__()
        self.first, self.head, self.early = nn.Linear(4, 4), nn.Linear(4, 2), early

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.head(x[:, -1:])[:, 0] if self.early else self.head(x)[:, -1]


@pytest.fixture
def shaped() -> hookline.Diff:
    """A diff with a call of other shapes, which is not compared."""
    torch.manual_seed(0)
    late, early = Narrows(early=False), Narrows(early=True)
    early.load_state_dict(late.state_dict())
    return hookline.diff(late, early, torch.randn(2, 5, 4))


def test_call_of_another_shape_is_drawn_as_excused(opened: Any, shaped: hookline.Diff) -> None:
    page = opened(shaped)

    row = page.query_selector(".row.excused")
    assert "≈ other shape, not compared" in row.inner_text()
    assert row.query_selector(".cell:last-child").evaluate("each => getComputedStyle(each).fontStyle") == "italic"
    assert page.query_selector(".row.differs") is None


def test_legend_of_a_diff_names_the_states_of_its_calls(opened: Any, shaped: hookline.Diff) -> None:
    assert opened(shaped).inner_text("#legend").split("\n") == ["≈ other shape, not compared", "the same"]


def test_diff_without_excused_calls_has_no_legend(opened: Any, results: Any) -> None:
    assert not opened(results["diff"]).is_visible("#legend")

"""Tests of the table that a run prints as: its rows, their order and words, and names that look like markup."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import Gives

import hookline
from hookline import Run
from hookline.record.record import CallRecord
from hookline.report.text import figure, findings_table, milliseconds, render, run_table, tensors_text


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.act = nn.ReLU()
        self.spare = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.linear(self.act(x)))


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), Block())


def recorded(module: nn.Module, x: Any = None, **settings: Any) -> Run:
    with hookline.watch(module, **settings) as run:
        module(torch.ones(2, 4) if x is None else x)
    return run


def rows(text: str) -> list[list[str]]:
    """The table's rows below its head, cut where two or more blanks are."""
    lines = text.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("call"))
    return [re.split(r"\s{2,}", line.strip()) for line in lines[start + 1 :]]


def test_the_first_line_counts_calls_and_modules() -> None:
    assert re.fullmatch(r"Sequential: 6 calls of 5 modules, [\d.]+ ms", repr(recorded(model())).splitlines()[0])


def test_one_is_not_a_plural() -> None:
    assert repr(recorded(nn.ReLU())).startswith("ReLU: 1 call of 1 module, ")


def test_the_head_names_the_columns() -> None:
    assert repr(recorded(model())).splitlines()[1].split() == [
        "call",
        "class",
        "in",
        "out",
        "ms",
        "mean",
        "std",
        "absmax",
        "zeros",
    ]


def test_without_figures_there_are_no_columns_for_them() -> None:
    assert repr(recorded(model(), keep="shape")).splitlines()[1].split() == ["call", "class", "in", "out", "ms"]


def test_with_gradients_there_is_a_column_for_their_norm() -> None:
    net = nn.Sequential(nn.Linear(4, 1))
    with hookline.watch(net, grads=True) as run:
        (net(torch.ones(1, 4)) * 7).sum().backward()
    text = repr(run)

    assert text.splitlines()[1].endswith("grad norm")
    assert [row[-1] for row in rows(text)] == ["7", "7"]


def test_a_gradient_without_figures_is_there_or_not() -> None:
    net = nn.Sequential(nn.Linear(4, 1), Gives(Tensor.detach))
    with hookline.watch(net, keep="shape", grads=True) as run:
        net(torch.ones(1, 4))
        net[0](torch.ones(1, 4)).sum().backward()

    assert [row[-1] == "yes" for row in rows(repr(run))] == [False, False, False, True]


def test_rows_stand_in_the_order_of_the_calls_and_name_each_by_its_last_part() -> None:
    assert [row[0] for row in rows(repr(recorded(model())))][:6] == ["Sequential", "0", "1", "act", "linear", "act #1"]


def test_rows_are_indented_by_the_call_around_them() -> None:
    lines = repr(recorded(model())).splitlines()[2:8]

    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 2, 2, 4, 4, 4]


def test_a_row_tells_class_shapes_and_figures() -> None:
    row = rows(repr(recorded(nn.ReLU(), torch.tensor([[-1.0, 0.0, 3.0, 1.0]]))))[0]

    assert row[:4] == ["ReLU", "ReLU", "1x4", "1x4"]
    assert row[5:] == ["1", "1.225", "3", "50%"]


@pytest.mark.parametrize(
    ("tensor", "shown"),
    [
        (torch.tensor(1.0), "scalar"),
        (torch.ones(2, 3), "2x3"),
        (torch.ones(2, dtype=torch.int64), "2 int64"),
        (torch.ones(0, 3, dtype=torch.bfloat16), "0x3 bfloat16"),
    ],
    ids=["scalar", "float32", "int64", "empty"],
)
def test_a_tensor_is_its_shape_and_its_dtype_where_that_is_not_float32(tensor: Tensor, shown: str) -> None:
    assert tensors_text(recorded(Gives(lambda x: tensor))[""].outputs) == shown


def test_of_several_tensors_two_are_shown() -> None:
    run = recorded(Gives(lambda x: {"a": x, "b": (x, [x, x])}))

    assert tensors_text(run[""].outputs) == "2x4 2x4 +2"


def test_nan_and_inf_are_counted_beside_the_output() -> None:
    row = rows(repr(recorded(nn.Identity(), torch.tensor([float("nan"), float("inf"), 1.0]))))[0]

    assert row[3] == "3 1 NaN 1 Inf"


def test_a_call_without_an_output_has_empty_figures() -> None:
    assert len(rows(repr(recorded(Gives(lambda x: None), keep="stats")))[0]) == 4


def test_a_call_that_raised_says_what() -> None:
    def fail(x: Tensor) -> Tensor:
        raise ValueError("no such shape")

    net = nn.Sequential(Gives(fail))
    with pytest.raises(ValueError), hookline.watch(net) as run:
        net(torch.ones(1))

    assert [row[3] for row in rows(repr(run))] == ["raised ValueError: no such shape"] * 2


EVIL = "[bold]x[/bold]</td><script>alert(1)</script>:smile:"


def test_names_that_look_like_markup_are_shown_as_they_are() -> None:
    evil = type(EVIL, (nn.ReLU,), {})()
    text = render(run_table(recorded(nn.ModuleDict({EVIL: evil})[EVIL], where="")), width=300)

    assert text.count(EVIL) == 3


def test_paths_and_errors_that_look_like_markup_are_shown_as_they_are() -> None:
    def fail(x: Tensor) -> Tensor:
        raise ValueError(EVIL)

    net = nn.ModuleDict({EVIL: Gives(fail)})
    with pytest.raises(ValueError), hookline.watch(net) as run:
        net[EVIL](torch.ones(1))
    text = render(run_table(run), width=300)

    assert f"\n{EVIL} " in text
    assert f"raised ValueError: {EVIL}" in text


def test_never_called_name_with_markup_is_shown_unchanged() -> None:
    with hookline.watch(nn.ModuleDict({EVIL: nn.ReLU()})) as run:
        pass

    assert EVIL in render(run_table(run), width=300)


# Long runs


def test_a_table_holds_as_many_rows_as_most_says_and_how_many_are_left(long: Run) -> None:
    lines = render(run_table(long, most=10)).splitlines()

    assert len(lines) == 2 + 10 + 1
    assert lines[-1] == "... and 1,490 more calls; run.calls holds them all"


def test_a_long_run_prints_400_rows(long: Run) -> None:
    lines = repr(long).splitlines()

    assert lines[0].startswith("ReLU: 1,500 calls of 1 module")
    assert len(lines) == 2 + 400 + 1
    assert lines[-2].startswith("ReLU #399 ")
    assert lines[-1] == "... and 1,100 more calls; run.calls holds them all"


def test_a_run_of_as_many_calls_as_most_leaves_none_out(long: Run) -> None:
    assert "more calls" not in render(run_table(long, most=1500))


def test_a_run_that_is_thousands_of_calls_deep_prints() -> None:
    run = Run(model="Deep", modules={"": "Deep"})
    for number in range(3000):
        call = CallRecord()
        call.path, call.index, call.type, call.number = "", number, "Deep", number
        call.parent = run.calls[-1] if run.calls else None
        call.args, call.kwargs, call.output, call.error = (), {}, None, None
        call.began, call.seconds, call.thread, call.training = 0.0, 0.0, 0, False
        run.calls.append(call)

    assert run.calls[-1].depth == 2999
    assert len(repr(run).splitlines()) == 403


# Below the table


def test_what_was_watched_but_never_called_stands_below_the_table() -> None:
    assert repr(recorded(model())).splitlines()[-1] == "watched but never called: 1.spare"


def test_of_many_that_were_never_called_five_are_named() -> None:
    with hookline.watch(nn.Sequential(*(nn.ReLU() for _ in range(9)))) as run:
        pass

    assert repr(run).splitlines()[-1] == "watched but never called: (the model), 0, 1, 2, 3 and 5 more"


def test_where_all_were_called_nothing_stands_below_the_table() -> None:
    assert "never called" not in repr(recorded(nn.Sequential(nn.ReLU())))


def test_an_empty_run_prints() -> None:
    with hookline.watch(nn.ReLU()) as run:
        pass

    assert repr(run).splitlines()[0] == "ReLU: 0 calls of 0 modules, 0.00 ms"


# Numbers


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (0.0, "0"),
        (1234.5678, "1235"),
        (1e-9, "1e-09"),
        (-0.12345678, "-0.1235"),
    ],
)
def test_a_figure_has_four_digits(value: float | None, shown: str) -> None:
    assert figure(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "0.00"), (1.234e-6, "0.00"), (0.0012345, "1.23"), (0.012345, "12.3"), (1.2345, "1234")]
)
def test_seconds_are_shown_as_milliseconds(seconds: float, shown: str) -> None:
    assert milliseconds(seconds) == shown


@pytest.mark.parametrize("width", [100, 120, 140])
def test_where_the_terminal_is_narrow_numbers_are_not_cut(width: int) -> None:
    net = model()
    with hookline.watch(net, grads=True) as run:
        net(torch.ones(2, 4) / 3).sum().backward()
    text = render(run_table(run), width=width)

    assert f"{run[''].output.std:.4g}" in text
    assert f"{run[''].output.grad.norm:.4g}" in text


# Findings


def faulty(name: str = "act") -> nn.Module:
    return nn.ModuleDict({name: Gives(lambda x: x.log())})[name]


def test_findings_are_a_line_and_a_table() -> None:
    findings = hookline.check(nn.Sequential(nn.Linear(4, 4), faulty()), torch.ones(2, 4))
    lines = repr(findings).splitlines()

    assert lines[0] == "Sequential: 1 error"
    assert lines[1].split()[:4] == ["module", "call", "what", "rule"]
    assert re.match(r"error +1 +0 +produces \d NaN among 8 .* nonfinite-output +Its inputs are", lines[2])


def test_nothing_found_is_a_line() -> None:
    first, looked, asked, *_ = repr(hookline.check(nn.Linear(4, 4), torch.ones(2, 4))).splitlines()
    assert first == "Linear: nothing found"
    assert looked == "looked at 1 call of 1 module, gradients of 2 of 2 parameters"
    assert asked.startswith(f"ran {len(hookline.RULES)} rules: nonfinite-parameter, ")


def test_of_many_findings_a_hundred_are_shown() -> None:
    @hookline.rule("many", severity="note")
    def many(evidence: hookline.Evidence) -> Any:
        return (hookline.Finding(EVIL, "is one of many") for _ in range(150))

    text = render(findings_table(hookline.check(nn.Linear(4, 4), torch.ones(2, 4), rules=[many])), width=300)

    assert text.startswith("Linear: 150 notes")
    assert text.count(EVIL) == 100
    assert text.endswith("... and 50 more; findings.found holds them all")

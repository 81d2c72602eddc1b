"""Tests of the command line: what it prints, where, with which exit code, and that what is wrong is told in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from toys import save_tiny_bert
from typer.testing import CliRunner, Result

import hookline
from hookline.cli.app import app

NET = """
import torch
from torch import nn

print("hello from net.py")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.second = nn.Linear(3, 2)

    def forward(self, x):
        return self.second(self.first(x))


class Failing(Net):
    def forward(self, x):
        return self.second(x)


class Interrupted(Net):
    def forward(self, x):
        self.first(x)
        raise KeyboardInterrupt


class Slow(Net):
    def forward(self, x):
        import sys, time
        self.first(x)
        print("ready", file=sys.stderr, flush=True)
        time.sleep(60)


class Rounded(Net):
    def forward(self, x):
        return super().forward(x).round().long()


class Talking(Net):
    def forward(self, x):
        print("hello from forward")
        return super().forward(x)


class Unwell(Net):
    def forward(self, x):
        return super().forward(x).abs().neg().log()


class Noted(Net):
    def __init__(self):
        super().__init__()
        self.spare = nn.Identity()


class Renamed(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.front, self.back = net.first, net.second

    def forward(self, x):
        return self.back(self.front(x))


def seeded():
    torch.manual_seed(0)
    return Net()


def biased():
    net = seeded()
    nn.init.ones_(net.first.bias)
    return net


def idle():
    net = seeded()
    net.register_buffer("spare", torch.ones(1))
    return net


def renamed():
    return Renamed(seeded())


number = 5
batch = torch.ones(3, 4)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, holding net.py; the output is 120 columns wide."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "broken.py").write_text("import torch\n\nx = 1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(hookline.__file__).parents[1]))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def watch(*arguments: str) -> Result:
    return run("watch", *arguments)


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "hookline", *arguments], capture_output=True, text=True, timeout=120)


def test_without_a_command_the_help_is_shown() -> None:
    assert "watch" in run().output


def test_the_help_of_watch_shows_every_option_and_an_example() -> None:
    text = watch("--help").stdout

    for part in (
        "MODEL",
        "--inputs",
        "--where",
        "--keep",
        "--no-grads",
        "--eval",
        "--save",
        "--json",
        "hookline watch demo",
    ):
        assert part in text


def test_the_help_shows_its_brackets() -> None:
    assert "'input_ids=int64[1,16]<30522'" in watch("--help").stdout


def test_the_version_is_printed() -> None:
    assert run("--version").stdout == f"hookline {hookline.__version__}\n"


# The table


def test_the_demo_is_watched_when_nothing_is_said() -> None:
    result = watch()

    assert result.exit_code == 0
    assert result.stdout.startswith("DigitReader: 23 calls of 18 modules")
    assert "grad norm" in result.stdout
    assert result.stderr == ""


def test_the_name_of_the_demo_gives_the_same() -> None:
    assert watch("demo").stdout.splitlines()[0].startswith("DigitReader: 23 calls of 18 modules")


def test_a_model_of_a_file_is_watched_with_inputs_of_a_description() -> None:
    result = watch("net.py:Net", "--inputs", "float32[3,4]")

    assert result.exit_code == 0
    assert "Net: 3 calls of 3 modules" in result.stdout


def test_a_model_of_a_module_is_watched_with_inputs_of_a_file() -> None:
    assert "Net: 3 calls of 3 modules" in watch("net:Net", "--inputs", "net.py:batch").stdout


def test_where_narrows_what_is_watched() -> None:
    result = watch("--where", "attention.*", "--where", "head")

    assert "5 calls of 5 modules" in result.stdout


def test_without_grads_no_gradient_is_shown() -> None:
    assert "grad norm" not in watch("--no-grads").stdout


def test_without_grads_an_output_that_has_none_is_fine() -> None:
    assert watch("net.py:Rounded", "--inputs", "net.py:batch", "--no-grads").exit_code == 0


def test_keep_shape_measures_nothing() -> None:
    assert "absmax" not in watch("--keep", "shape").stdout


@pytest.mark.parametrize(("flag", "training"), [("--train", True), ("--eval", False)])
def test_the_model_runs_in_the_mode_that_is_asked_for(flag: str, training: bool) -> None:
    document = json.loads(watch("--json", flag).stdout)

    assert {call["training"] for call in document["calls"]} == {training}


# JSON


def test_json_is_one_document_of_the_run() -> None:
    document = json.loads(watch("--json").stdout)

    assert document["model"] == "DigitReader"
    assert len(document["calls"]) == 23


def test_json_has_stdout_for_itself_whatever_the_users_code_prints() -> None:
    result = watch("net.py:Talking", "--inputs", "net.py:batch", "--json")

    assert json.loads(result.stdout)["model"] == "Talking"
    assert "hello from net.py" in result.stderr
    assert "hello from forward" in result.stderr


def test_json_of_a_model_that_raised_holds_what_came_before() -> None:
    result = watch("net.py:Failing", "--inputs", "net.py:batch", "--json")

    assert result.exit_code == 1
    assert [call["path"] for call in json.loads(result.stdout)["calls"]] == ["", "second"]


# Saving


@pytest.mark.parametrize("command", ["watch", "check", "profile", "hooks"])
def test_saved_result_opens_again(folder: Path, command: str) -> None:
    arguments = {"watch": ["--no-grads"], "profile": ["--repeat", "1"]}.get(command, [])

    result = run(command, "demo", *arguments, "--save", "first", "--json")

    assert result.exit_code == 0
    assert result.stderr == "saved to first\n"
    assert hookline.load(folder / "first").to_dict() == json.loads(result.stdout)
    assert run("report", "first").exit_code == 0
    assert "DigitReader" in (folder / "first.html").read_text()


def test_findings_of_a_failed_check_are_saved(folder: Path) -> None:
    result = check("net.py:Failing", "--inputs", "net.py:batch", "--save", "found")

    assert result.exit_code == 1
    assert any(each.rule == "raised" for each in hookline.load(folder / "found"))


def test_hooks_write_a_page(folder: Path) -> None:
    result = run("hooks", "demo", "--page", "hooks.html")

    assert result.exit_code == 0
    assert result.stderr == "wrote hooks.html: open it in a browser\n"
    assert "<title>" in (folder / "hooks.html").read_text()


def test_a_saved_run_can_be_loaded(folder: Path) -> None:
    result = watch("--save", "before")

    run = hookline.load(folder / "before")
    assert len(run) == 23
    assert run["head"].output.shape == (32, 10)
    assert "saved to before" in result.stderr


def test_a_saved_run_is_replaced(folder: Path) -> None:
    watch("--save", "before")

    assert watch("--save", "before", "--where", "head").exit_code == 0
    assert len(hookline.load(folder / "before")) == 1


def test_copies_are_saved_with_the_run(folder: Path) -> None:
    watch("net.py:Net", "--inputs", "net.py:batch", "--keep", "copy", "--save", "before")

    assert hookline.load(folder / "before")[""].output.value.shape == (3, 2)


def test_json_and_save_go_together(folder: Path) -> None:
    result = watch("--json", "--save", "before")

    assert len(json.loads(result.stdout)["calls"]) == len(hookline.load(folder / "before"))


# What is wrong


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "no model 'nosuch'"),
        (["nosuch.module:x"], "cannot import nosuch.module"),
        (["net.py"], "as in net.py:name"),
        (["net.py:missing"], "net.py has no 'missing'"),
        (["net.py:number"], "net.py:number is an int"),
        (["broken.py:x"], "ZeroDivisionError: division by zero (broken.py:3)"),
        (["net.py:Net"], "net.py:Net needs inputs: --inputs"),
        (["--where", "nosuch.*"], "'nosuch.*' matches none of the 18 modules of DigitReader"),
        (
            ["--keep", "everything"],
            "--keep must be shape, stats, histogram, tensor, copy or fingerprint, not 'everything'",
        ),
        (["--inputs", "input_ids=int64"], "cannot read 'input_ids=int64' in --inputs"),
        (["--inputs", "nosuch.safetensors"], "no inputs file nosuch.safetensors"),
        (["--inputs", "broken.json"], "cannot read the inputs file broken.json"),
        (["--save", "."], "is not a saved run"),
        (["--save", "net.py/below"], "net.py/below: "),
        (["--save", "kept", "--keep", "tensor"], "was changed in place after it was recorded"),
        (["net.py:Rounded", "--inputs", "net.py:batch"], "use --no-grads"),
    ],
)
def test_wrong_input_gives_one_line_and_exit_code_2(folder: Path, arguments: list[str], said: str) -> None:
    (folder / "broken.json").write_text("{")

    result = watch(*arguments)

    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("hookline: ")
    assert said in result.stderr


def test_a_failed_save_leaves_the_table(folder: Path) -> None:
    assert watch("--save", "kept", "--keep", "tensor").stdout.startswith("DigitReader: 23 calls")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["watch", "nosuch", "--save", "."], "exists and is not a saved run"),
        (["watch", "nosuch", "--save", "net.py/below"], "cannot save to"),
        (["diff", "nosuch", "other", "--save", "."], "exists and is not a saved diff"),
        (["check", "nosuch", "--save", "."], "exists and is not a saved findings"),
        (["profile", "nosuch", "--save", "."], "exists and is not a saved profile"),
        (["hooks", "nosuch", "--save", "."], "exists and is not a saved hooks"),
        (["hooks", "nosuch", "--page", "missing/hooks.html"], "cannot write missing/hooks.html"),
        (["profile", "nosuch", "--trace", "missing/t.json"], "cannot write missing/t.json: No such file or directory"),
        (["profile", "nosuch", "--trace", "net.py/t.json"], "cannot write net.py/t.json: Not a directory"),
        (["profile", "nosuch", "--trace", "."], "cannot write .: it is a folder"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_unwritable_result_is_reported_before_the_run(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("hookline: ")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["watch", "--nosuch"], ["nosuch"], ["watch", "demo", "more"]])
def test_a_usage_error_has_exit_code_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_model_error_names_place_and_inputs_and_exits_1() -> None:
    result = watch("net.py:Failing", "--inputs", "net.py:batch")

    assert result.exit_code == 1
    words = "mat1 and mat2 shapes cannot be multiplied (3x4 and 3x2)"  # PyTorch 2.15 says "addmm: " before them
    assert result.stderr.replace("addmm: ", "").splitlines() == [
        f"hookline: the model raised RuntimeError: {words} (net.py:20)",
        "hookline: in second (Linear, call 0), called with (float32[3, 4] cpu)",
        "  Linear(in_features=3) expects [..., 3], got [3, 4].",
        "  it has weight float32[2, 3] cpu, bias float32[2] cpu",
        "  inside the model (Failing, call 0), called with (float32[3, 4] cpu)",
    ]


def test_a_model_that_raises_shows_what_was_recorded_up_to_it() -> None:
    result = watch("net.py:Failing", "--inputs", "net.py:batch")

    assert "Failing: 2 calls of 2 modules" in result.stdout
    assert "raised RuntimeError" in result.stdout


def test_a_model_that_raises_is_saved_all_the_same(folder: Path) -> None:
    watch("net.py:Failing", "--inputs", "net.py:batch", "--save", "before")

    assert hookline.load(folder / "before")["second"].error is not None


def test_an_interrupt_is_one_line_and_exit_code_130() -> None:
    result = watch("net.py:Interrupted", "--inputs", "net.py:batch")

    assert result.exit_code == 130
    assert len(result.stderr.splitlines()) == 1
    assert "interrupted; recorded so far: Interrupted: 2 calls of 2 modules" in result.stderr


def test_an_interrupt_while_loading_is_one_line_and_exit_code_130(folder: Path) -> None:
    (folder / "stopped.py").write_text("raise KeyboardInterrupt\n")

    result = watch("stopped.py:net")

    assert result.exit_code == 130
    assert result.stderr == "hookline: interrupted\n"


# Every MODEL kind


def test_a_transformers_folder_is_watched(folder: Path) -> None:
    save_tiny_bert(folder / "bert")

    result = watch("bert", "--where", "bert.encoder.layer.*")

    assert result.exit_code == 0
    assert "BertForSequenceClassification: 1 call of 1 module" in result.stdout
    assert result.stderr == ""


# As a process


@pytest.mark.slow
def test_python_m_hookline_runs_the_command_line() -> None:
    result = process("watch", "--json", "--where", "head")

    assert result.returncode == 0
    assert len(json.loads(result.stdout)["calls"]) == 1
    assert result.stderr == ""


@pytest.mark.slow
def test_wrong_input_leaves_no_traceback_in_a_process() -> None:
    result = process("watch", "nosuch.module:x")

    assert result.returncode == 2
    assert result.stderr == "hookline: cannot import nosuch.module: ModuleNotFoundError: No module named 'nosuch'\n"


def listen_to_sigint() -> None:
    """Undo what a shell does to processes that it starts in the background: they ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_ends_a_process_with_130() -> None:
    arguments = ["watch", "net.py:Slow", "--inputs", "net.py:batch"]
    command = [sys.executable, "-m", "hookline", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=listen_to_sigint) as slow:
        assert slow.stderr is not None
        assert slow.stderr.readline() == "ready\n"
        time.sleep(0.3)  # until it sleeps
        slow.send_signal(signal.SIGINT)
        last = slow.stderr.read().splitlines()

    assert slow.returncode == 130, last
    assert len(last) == 1
    assert last[0].startswith("hookline: interrupted; recorded so far: Slow: 2 calls of 2 modules")


# hooks


def test_hooks_lists_the_hooks_of_a_model(tmp_path: Path) -> None:
    source = (
        "from torch import nn\nnet = nn.Sequential(nn.ReLU())\nnet[0].register_forward_hook(print, with_kwargs=True)\n"
    )
    (tmp_path / "hooked.py").write_text(source)
    result = CliRunner().invoke(app, ["hooks", f"{tmp_path / 'hooked.py'}:net"])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "Sequential: 1 of PyTorch"
    assert result.stdout.splitlines()[2].split()[:5] == ["0", "forward", "+kwargs", "PyTorch", "0"]


def test_hooks_gives_one_json_document(tmp_path: Path) -> None:
    source = "from torch import nn\nprint('hello')\nnet = nn.ReLU()\nnet.register_forward_hook(print)\n"
    (tmp_path / "hooked.py").write_text(source)
    result = CliRunner().invoke(app, ["hooks", f"{tmp_path / 'hooked.py'}:net", "--json"])
    (hook,) = json.loads(result.stdout)["hooks"]
    assert (hook["path"], hook["kind"], hook["owner"], hook["name"]) == ("", "forward", "PyTorch", "print")


def test_hooks_of_missing_model_exit_2_with_one_line() -> None:
    result = CliRunner().invoke(app, ["hooks", "nosuch"])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


# check


def check(*arguments: str) -> Result:
    return run("check", *arguments)


@pytest.mark.parametrize("flag", ["--train", "--eval"])
def test_a_check_of_the_demo_finds_nothing(flag: str) -> None:
    result = check(flag)

    assert result.exit_code == 0
    assert result.stdout.startswith("DigitReader: nothing found\nlooked at ")
    assert result.stderr == ""


def test_a_check_that_finds_something_has_exit_code_1() -> None:
    result = check("net.py:Unwell", "--inputs", "float32[3,4]")

    assert result.exit_code == 1
    assert "Unwell: 1 error" in result.stdout
    assert "nonfinite-output" in result.stdout


def test_notes_alone_have_exit_code_0() -> None:
    result = check("net.py:Noted", "--inputs", "net.py:batch")

    assert result.exit_code == 0
    assert "Noted: 1 note" in result.stdout


def test_a_check_gives_one_json_document() -> None:
    result = check("net.py:Unwell", "--inputs", "net.py:batch", "--json")
    document = json.loads(result.stdout)

    assert result.exit_code == 1
    assert document["worst"] == "error"
    assert [(found["rule"], found["path"]) for found in document["findings"]][0] == ("nonfinite-output", "")
    assert "hello from net.py" in result.stderr


def test_a_model_that_raises_in_a_check_is_told_beside_its_findings() -> None:
    result = check("net.py:Failing", "--inputs", "net.py:batch")

    assert result.exit_code == 1
    assert "raised" in result.stdout
    assert "hookline: the model raised RuntimeError" in result.stderr
    assert "hookline: in second (Linear, call 0)" in result.stderr


def test_where_narrows_what_is_checked() -> None:
    assert "nothing found" in check("net.py:Noted", "--inputs", "net.py:batch", "--where", "first").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "no model 'nosuch'"),
        (["net.py:Net"], "net.py:Net needs inputs: --inputs"),
        (["--where", "nosuch.*"], "'nosuch.*' matches none of the 18 modules of DigitReader"),
    ],
)
def test_wrong_arguments_of_check_exit_2_with_one_line(arguments: list[str], said: str) -> None:
    result = check(*arguments)

    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert said in result.stderr


def test_an_interrupt_of_a_check_is_one_line_and_exit_code_130() -> None:
    result = check("net.py:Interrupted", "--inputs", "net.py:batch")

    assert result.exit_code == 130
    assert result.stderr == "hookline: interrupted\n"


def test_an_output_without_a_gradient_is_checked_forward_alone() -> None:
    assert check("net.py:Rounded", "--inputs", "net.py:batch").exit_code == 0


def test_the_help_of_check_shows_its_options_and_an_example() -> None:
    text = check("--help").stdout

    for part in ("MODEL", "--inputs", "--where", "--eval", "--json", "hookline check net.py:Net", "Exit code 0"):
        assert part in text


# diff


def diff(*arguments: str) -> Result:
    return run("diff", *arguments)


def test_a_diff_of_a_model_and_itself_finds_nothing() -> None:
    result = diff("demo", "demo")

    assert result.exit_code == 0
    assert result.stdout == "DigitReader and DigitReader: outputs agree; no difference in 23 calls\n"


def test_a_diff_of_two_models_has_exit_code_1_and_names_the_culprit() -> None:
    result = diff("net.py:seeded", "net.py:biased", "--inputs", "net.py:batch", "--grads")

    assert result.exit_code == 1
    assert "culprit first (Linear): bias differs" in " ".join(result.stdout.split())


def test_a_diff_of_two_saved_runs(folder: Path) -> None:
    for name in ("seeded", "biased"):
        watch(f"net.py:{name}", "--inputs", "net.py:batch", "--keep", "fingerprint", "--save", name)

    assert diff("seeded", "seeded").exit_code == 0
    result = diff("seeded", "biased", "--save", "found", "--where", "first")
    assert result.exit_code == 1
    assert "1 of 1 calls differ" in result.stdout
    assert hookline.load(folder / "found").culprit.path == "first"  # type: ignore[union-attr]


def capture(name: str, scale: float = 1.0) -> None:
    model = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(model.weight, scale)
    torch.nn.init.zeros_(model.bias)
    hookline.capture(model.eval(), torch.ones(5, 2), "", to=name, batch=1, progress=False)


def test_diff_of_two_captures(folder: Path) -> None:
    capture("acts")
    capture("more", scale=2.0)

    assert diff("acts", "acts").exit_code == 0
    for _ in range(2):
        result = diff("acts", "more", "--save", "differ", "--page", "differ.html")
        assert result.exit_code == 1
        assert "Linear: other weights; 1 of 1 points differ" in result.stdout
    assert "replacing the comparison saved there" in result.stderr
    assert hookline.load(folder / "differ")[""].largest == 2.0  # type: ignore[index]
    assert "other weights" in (folder / "differ.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["acts", "demo"], "acts is a capture and demo is not; give two captures, or two models"),
        (["acts", "acts", "--where", "fc"], "captures are compared as they are"),
    ],
)
def test_wrong_arguments_of_a_diff_of_captures_exit_2(folder: Path, arguments: list[str], said: str) -> None:
    capture("acts")
    result = diff(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_report_writes_the_page_of_a_capture(folder: Path) -> None:
    capture("acts")
    assert run("report", "acts").exit_code == 0
    assert "count, log scale" in (folder / "acts.html").read_text()


def test_a_diff_gives_one_json_document() -> None:
    result = diff("net.py:seeded", "net.py:renamed", "--inputs", "net.py:batch", "--map", "first=front", "--json")

    document = json.loads(result.stdout)
    assert result.exit_code == 0
    assert document["same"] is True
    assert document["mapping"] == {"first": "front", "second": "back"}
    assert document["proposed"] == {"second": "back"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo", "saved"], "saved is a saved run and demo is not; give two runs, or two models"),
        (["saved", "saved", "--grads"], "saved runs are not run again"),
        (["saved", "nowhere"], "saved is a saved run and nowhere is not"),
        (["demo", "demo", "--map", "first"], "--map must be FROM=TO, such as 'layers.*=h.*', not 'first'"),
        (["demo", "demo", "--map", "stem=nowhere"], "leads to 'nowhere', which the second does not have"),
        (["demo", "demo", "--where", "nowhere"], "'nowhere' matches none of the"),
        (["net.py:Net", "net.py:Net"], "net.py:Net needs inputs: --inputs"),
    ],
)
def test_wrong_arguments_of_diff_exit_2_with_one_line(arguments: list[str], said: str) -> None:
    watch("net.py:Net", "--inputs", "net.py:batch", "--save", "saved")

    result = diff(*arguments)

    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_two_runs_of_which_nothing_belongs_together_have_exit_code_2() -> None:
    for name in ("first", "second"):
        watch("net.py:Net", "--inputs", "net.py:batch", "--where", name, "--save", name)

    result = diff("first", "second")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "nothing to compare: no call of the first matches a call of the second" in result.stderr


def test_models_that_agree_have_exit_code_0_though_a_weight_differs() -> None:
    result = diff("net.py:seeded", "net.py:idle", "--inputs", "net.py:batch")

    assert result.exit_code == 0
    assert "Net and Net: outputs agree; no difference in 3 calls, though 1 weight differs\n" in result.stdout


def test_a_model_that_raises_in_a_diff_is_told_with_exit_code_1() -> None:
    result = diff("net.py:Net", "net.py:Failing", "--inputs", "net.py:batch")

    assert result.exit_code == 1
    assert "the model raised RuntimeError" in result.stderr


def test_an_interrupt_of_a_diff_is_one_line_and_exit_code_130() -> None:
    result = diff("net.py:Interrupted", "net.py:Net", "--inputs", "net.py:batch")

    assert result.exit_code == 130
    assert result.stderr == "hookline: interrupted\n"


def test_the_help_of_diff_shows_its_options_and_an_example() -> None:
    text = diff("--help").stdout

    for part in (
        "A",
        "B",
        "--inputs",
        "--map",
        "--where",
        "--grads",
        "--save",
        "hookline diff before/ after/",
        "Exit code 0",
    ):
        assert part in text


# profile


@pytest.mark.usefixtures("folder")
def test_profile_prints_what_each_module_costs() -> None:
    result = run("profile", "net.py:Net", "--inputs", "float32[2,4]", "--repeat", "1")
    assert result.exit_code == 0
    assert "profiling added" in result.stdout
    assert [line.split()[0] for line in result.stdout.splitlines()[4:7]] == ["Net", "first", "second"]


def test_a_profile_gives_one_json_document_and_a_trace(folder: Path) -> None:
    result = run(
        "profile",
        "net.py:Net",
        "--inputs",
        "float32[2,4]",
        "--repeat",
        "1",
        "--json",
        "--trace",
        str(folder / "t.json"),
    )
    assert [cost["flops"] for cost in json.loads(result.stdout)["costs"]] == [72, 48, 24]
    assert json.loads((folder / "t.json").read_text())["traceEvents"]


@pytest.mark.usefixtures("folder")
def test_a_profile_on_meta_computes_nothing() -> None:
    result = run("profile", "net.py:Net", "--inputs", "float32[2,4]", "--meta", "--json")
    assert json.loads(result.stdout)["costs"][0]["forward"] == "nan"


@pytest.mark.usefixtures("folder")
def test_model_error_in_profile_names_place_and_exits_1() -> None:
    result = run("profile", "net.py:Failing", "--inputs", "float32[2,4]")
    assert result.exit_code == 1
    assert "in second (Linear, call 0)" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "no model 'nosuch'"),
        (["demo", "--repeat", "0"], "repeat must be 1 or more"),
        (["demo", "--where", "nosuch"], "matches none"),
        (["net.py:Net", "--inputs", "float32[2,4]", "--meta", "--trace", "t.json"], "--trace needs times"),
        (["net.py:Rounded", "--inputs", "float32[2,4]"], "use --no-grads"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_wrong_arguments_of_profile_exit_2_with_one_line(arguments: list[str], said: str) -> None:
    result = run("profile", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1

"""Tests that a MODEL and an --inputs SPEC become a model and its inputs, or one line that says what is wrong with them."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from toys import save_tiny_bert

from hookline import SourceError, demo
from hookline.cli.sources import explain, load, load_inputs, load_model, scalar_loss

NET = """
from types import SimpleNamespace

import torch
from torch import nn

from beside import WIDTH

RUNS = []
RUNS.append(1)


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(WIDTH, 2))


class Sized(nn.Module):
    def __init__(self, size):
        super().__init__()


def build():
    from later import DEPTH

    return nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH)])


def broken():
    raise KeyError("weights")


net = Net()
zoo = SimpleNamespace(small=SimpleNamespace(net=net))
number = 5
batch = torch.ones(3, WIDTH)
arguments = [torch.ones(3, WIDTH), 7]
named = {"input": torch.ones(3, WIDTH)}


def make_batch():
    return (batch, None)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, holding net.py and what it imports; what the test imports is forgotten after it."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "beside.py").write_text("WIDTH = 4\n")
    (tmp_path / "later.py").write_text("DEPTH = 3\n")
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a tiny BERT for classification."""
    return save_tiny_bert(tmp_path_factory.mktemp("bert"))


def inputs(spec: str | None, model: nn.Module | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return load_inputs(spec, nn.Linear(4, 2) if model is None else model, "net.py:net")


def complaint(spec: str) -> str:
    """What load_inputs says of a wrong SPEC."""
    with pytest.raises(SourceError) as caught:
        inputs(spec)
    message = str(caught.value)
    assert "\n" not in message
    return message


# MODEL


def test_demo_is_the_shipped_network() -> None:
    assert isinstance(load_model("demo"), demo.DigitReader)


def test_a_module_in_a_file_is_given_as_it_is(folder: Path) -> None:
    model = load_model("net.py:net")

    assert type(model).__name__ == "Net"
    assert load_model("net.py:net") is model


def test_a_class_in_a_file_is_called(folder: Path) -> None:
    assert type(load_model("net.py:Net")).__name__ == "Net"


def test_function_in_file_can_import_from_its_folder(folder: Path) -> None:
    assert len(load_model("net.py:build")) == 3  # type: ignore[arg-type]


def test_a_file_elsewhere_imports_from_its_own_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")

    assert type(load_model(f"{folder}/net.py:net")).__name__ == "Net"


def test_the_import_path_is_afterwards_what_it_was(folder: Path) -> None:
    before = list(sys.path)

    load_model("net.py:net")

    assert sys.path == before


def test_the_file_is_run_once_for_the_model_and_its_inputs(folder: Path) -> None:
    load("net.py:net", "net.py:batch")

    assert inputs("net.py:RUNS") == ((1,), {})


def test_two_files_of_one_name_are_two_modules(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "net.py").write_text("from torch import nn\nnet = nn.ReLU()\n")

    assert isinstance(load_model("net.py:net"), nn.Sequential)
    assert isinstance(load_model("other/net.py:net"), nn.ReLU)


def test_files_import_from_their_own_folder(folder: Path) -> None:
    (folder / "other" / "parts").mkdir(parents=True)
    (folder / "parts").mkdir()
    for where, width in ((folder, 4), (folder / "other", 7)):
        (where / "net.py").write_text("from torch import nn\nfrom beside import WIDTH\nfrom parts.deep import DEEP\n")
        (where / "beside.py").write_text(f"WIDTH = {width}\n")
        (where / "parts" / "__init__.py").write_text("")
        (where / "parts" / "deep.py").write_text(f"DEEP = {width}\n")
    with (folder / "net.py").open("a") as file:
        file.write("import again\nnet = nn.Linear(WIDTH, DEEP)\n")
    with (folder / "other" / "net.py").open("a") as file:
        file.write("net = nn.Linear(WIDTH, DEEP)\n")
    (folder / "again.py").write_text("from beside import WIDTH\n")
    (folder / "late.py").write_text(
        "from torch import nn\nimport beside\nimport again\nnet = nn.Linear(beside.WIDTH, 1)\n"
    )

    sizes = [load_model(spec).weight.shape for spec in ("net.py:net", "other/net.py:net", "late.py:net")]

    assert sizes == [(4, 4), (7, 7), (1, 4)]


def test_a_module_of_the_current_folder_is_imported_by_name(folder: Path) -> None:
    assert type(load_model("net:Net")).__name__ == "Net"


def test_a_class_of_an_installed_package_is_imported_by_name() -> None:
    assert isinstance(load_model("torch.nn:ReLU"), nn.ReLU)


def test_a_name_with_dots_is_looked_up_part_by_part(folder: Path) -> None:
    assert load_model("net.py:zoo.small.net") is load_model("net.py:net")


def test_transformers_folder_loads_the_configs_architecture(bert: Path) -> None:
    model = load_model(str(bert))

    assert type(model).__name__ == "BertForSequenceClassification"
    assert not model.training


def test_transformers_folder_without_architecture_loads_base(bert: Path, tmp_path: Path) -> None:
    config = json.loads((bert / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModel"]}))
    (tmp_path / "model.safetensors").write_bytes((bert / "model.safetensors").read_bytes())

    assert type(load_model(str(tmp_path))).__name__ == "BertModel"


def test_loading_a_transformers_folder_shows_no_progress_bar(bert: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(str(bert))

    assert capfd.readouterr().err == ""


def test_the_model_comes_in_the_mode_that_is_asked_for(folder: Path) -> None:
    assert load("demo", train=True).model.training
    assert not load("demo").model.training
    assert not load("net.py:Net", "float32[2,4]", train=False).model.training


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nosuch", "no model 'nosuch': give demo, package.module:name"),
        ("net.py", "as in net.py:name"),
        ("net.py:", "as in net.py:name"),
        (":net", "no model ':net'"),
        ("nosuch.py:net", "no file nosuch.py"),
        ("nosuch.module:net", "cannot import nosuch.module: ModuleNotFoundError: No module named 'nosuch'"),
        ("net.py:missing", "net.py has no 'missing'; it has "),
        ("net.py:nett", "net.py has no 'nett'; nearest: net"),
        ("net.py:zoo.large", "net.py has no 'large'"),
        ("net.py:number", "net.py:number is an int; name a torch.nn.Module"),
        ("net.py:make_batch", "net.py:make_batch is a tuple; name a torch.nn.Module"),
        ("net.py:Sized", "raised TypeError: Sized.__init__() missing 1 required positional argument: 'size'"),
        ("net.py:broken", "raised KeyError: 'weights' (net.py:30)"),
        ("empty", "the folder empty holds no config.json"),
        ("damaged", "cannot load the model in damaged: "),
    ],
)
def test_a_model_that_cannot_be_loaded_is_explained_in_a_line(folder: Path, spec: str, said: str) -> None:
    (folder / "empty").mkdir()
    (folder / "damaged").mkdir()
    (folder / "damaged" / "config.json").write_text("{")

    with pytest.raises(SourceError) as caught:
        load_model(spec)

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import torch\n\nx = 1 / 0\n", "cannot import own.py: ZeroDivisionError: division by zero (own.py:3)"),
        ("def f(:\n", "cannot import own.py: SyntaxError: invalid syntax (own.py:1)"),
        ("from torch import nosuch\n", "ImportError: cannot import name 'nosuch' from 'torch'"),
        ("import torch\ntorch.ones(2) @ torch.ones(3)\n", "(own.py:2)"),
        ("raise SystemExit(3)\n", "cannot import own.py: SystemExit: 3 (own.py:1)"),
    ],
)
def test_an_error_in_the_users_file_is_told_with_its_line(folder: Path, code: str, said: str) -> None:
    (folder / "own.py").write_text(code)

    with pytest.raises(SourceError) as caught:
        load_model("own.py:net")

    assert said in str(caught.value)


def test_a_file_that_failed_is_run_again_when_it_is_asked_for_again(folder: Path) -> None:
    (folder / "own.py").write_text("1 / 0\n")
    with pytest.raises(SourceError):
        load_model("own.py:net")

    (folder / "own.py").write_text("from torch import nn\n\nnet = nn.ReLU()\n")

    assert isinstance(load_model("own.py:net"), nn.ReLU)


def test_missing_transformers_says_what_to_install(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)

    with pytest.raises(SourceError, match="pip install transformers"):
        load_model(str(bert))


# SPEC: none


def test_the_demo_is_given_a_batch_of_32_of_its_images() -> None:
    (images,), kwargs = load_inputs(None, demo.model(), "demo")

    assert torch.equal(images, demo.digits()[0][:32])
    assert kwargs == {}


def test_the_demos_loss_is_its_cross_entropy() -> None:
    subject = load("demo")
    images, labels = demo.digits()

    expected = nn.functional.cross_entropy(demo.model()(images[:32]), labels[:32])

    assert torch.equal(subject.loss(subject.model(*subject.args)), expected)


def test_the_demo_with_inputs_of_the_users_has_no_labels() -> None:
    assert load("demo", "float32[2,1,8,8]").loss is scalar_loss


def test_a_transformers_model_is_given_its_dummy_inputs(bert: Path) -> None:
    args, kwargs = inputs(None, load_model(str(bert)))

    assert args == ()
    assert kwargs["input_ids"].dtype == torch.int64


def test_any_other_model_needs_inputs() -> None:
    with pytest.raises(SourceError, match=r"net.py:net needs inputs: --inputs 'input_ids=int64\[1,16\]<30522'"):
        inputs(None)


def test_a_transformers_model_that_does_not_read_text_needs_inputs() -> None:
    model = nn.ReLU()
    model.dummy_inputs = {"input_ids": torch.ones(1, 2)}
    model.main_input_name = "pixel_values"

    with pytest.raises(SourceError, match="needs inputs: --inputs"):
        inputs(None, model)


# SPEC: descriptions


def test_a_name_dtype_and_shape_make_a_named_tensor() -> None:
    args, kwargs = inputs("images=float32[8,3,32,32]")

    assert args == ()
    assert kwargs["images"].shape == (8, 3, 32, 32)
    assert kwargs["images"].dtype == torch.float32


def test_without_a_name_the_tensor_is_given_by_position() -> None:
    (images,), kwargs = inputs("float32[8,3]")

    assert images.shape == (8, 3)
    assert kwargs == {}


@pytest.mark.parametrize("separator", [",", ", ", ";", " ; ", " ", "\n"])
def test_descriptions_are_parted_by_comma_semicolon_or_space(separator: str) -> None:
    args, kwargs = inputs(f"float32[2,3]{separator}ids=int64[1, 4]<9{separator}mask=bool[1,4]")

    assert [tuple(tensor.shape) for tensor in (*args, *kwargs.values())] == [(2, 3), (1, 4), (1, 4)]
    assert list(kwargs) == ["ids", "mask"]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("float", torch.float32),
        ("float16", torch.float16),
        ("bfloat16", torch.bfloat16),
        ("float32", torch.float32),
        ("float64", torch.float64),
        ("int", torch.int64),
        ("int32", torch.int32),
        ("int64", torch.int64),
        ("bool", torch.bool),
        ("torch.float32", torch.float32),
    ],
)
def test_every_dtype_has_its_name(name: str, dtype: torch.dtype) -> None:
    assert inputs(f"{name}[3]")[0][0].dtype == dtype


def test_integers_are_random_below_the_number_given() -> None:
    (ids,), _ = inputs("int64[1000]<5")

    assert set(ids.tolist()) == {0, 1, 2, 3, 4}


def test_integers_without_a_number_are_0_or_1() -> None:
    (ids,), _ = inputs("int64[100]")

    assert set(ids.tolist()) == {0, 1}


def test_floats_are_standard_normal() -> None:
    (values,), _ = inputs("float32[10000]")

    assert values.mean().item() == pytest.approx(0, abs=0.05)
    assert values.std().item() == pytest.approx(1, abs=0.05)


def test_empty_brackets_make_a_single_number() -> None:
    assert inputs("float32[]")[0][0].shape == ()


def test_a_description_gives_the_same_tensors_every_time() -> None:
    assert torch.equal(inputs("float32[4] int64[4]<99")[0][1], inputs("float32[4] int64[4]<99")[0][1])


def test_a_description_leaves_the_global_random_state_alone() -> None:
    model = nn.ReLU()
    before = torch.get_rng_state()

    inputs("float32[4], int64[4]<9, bool[4]", model)

    assert torch.equal(torch.get_rng_state(), before)


def test_inputs_of_a_model_whose_weights_are_elsewhere_stay_on_the_cpu() -> None:
    (values,), _ = inputs("float32[2,4]", nn.Linear(4, 2, device="meta"))

    assert values.device.type == "cpu"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("", "cannot read '' in --inputs: give 'input_ids=int64[1,16]<30522'"),
        ("input_ids", "cannot read 'input_ids' in --inputs"),
        ("input_ids=int64", "cannot read 'input_ids=int64' in --inputs"),
        ("float32[2,-1]", "cannot read 'float32[2,-1]' in --inputs"),
        ("float32[2,]", "cannot read 'float32[2,]' in --inputs"),
        ("float32[2", "cannot read 'float32[2' in --inputs"),
        ("float32[2]float32[3]", "cannot read 'float32[2]float32[3]' in --inputs"),
        ("float32[2], mask=bool 1,16", "cannot read 'mask=bool 1,16' in --inputs"),
        ("ids=int64[1,16]<many", "cannot read 'ids=int64[1,16]<many' in --inputs"),
        ("complex64[2]", "dtype must be one of float, float16"),
        ("a=float32[2] a=float32[3]", "names a twice"),
        ("float32[2]<5", "only integers can have '<'"),
        ("bool[2]<5", "only integers can have '<'"),
        ("int64[2]<0", "the number after '<' must be from 1 to 9223372036854775807"),
        ("int32[2]<3000000000", "the number after '<' must be from 1 to 2147483647"),
        ("float32[99999999999999999999]", "a number of 20 digits is too large"),
    ],
)
def test_a_wrong_description_is_explained_in_a_line(spec: str, said: str) -> None:
    assert said in complaint(spec)


# SPEC: files


def test_a_safetensors_file_gives_its_tensors_by_name(tmp_path: Path) -> None:
    save_file({"input": torch.arange(6).view(2, 3)}, tmp_path / "x.safetensors")

    args, kwargs = inputs(f"{tmp_path}/x.safetensors")

    assert args == ()
    assert torch.equal(kwargs["input"], torch.arange(6).view(2, 3))


def test_an_npz_file_gives_its_arrays_by_name(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "x.npz", input=numpy.ones((2, 3), dtype=numpy.float32))

    assert torch.equal(inputs(f"{tmp_path}/x.npz")[1]["input"], torch.ones(2, 3))


def test_the_lists_of_a_json_file_are_tensors_of_their_kind(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"ids": [[1, 2]], "scale": [0.5, 1], "mask": [true, false]}')

    _, kwargs = inputs(f"{tmp_path}/x.json")

    assert {name: tensor.dtype for name, tensor in kwargs.items()} == {
        "ids": torch.int64,
        "scale": torch.float32,
        "mask": torch.bool,
    }
    assert kwargs["ids"].tolist() == [[1, 2]]


def test_what_is_no_list_in_a_json_file_is_given_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"ids": [1], "use_cache": false, "top": 3, "past": null}')

    _, kwargs = inputs(f"{tmp_path}/x.json")

    assert (kwargs["use_cache"], kwargs["top"], kwargs["past"]) == (False, 3, None)


@pytest.mark.parametrize("ending", ["pt", "pth"])
def test_a_torch_file_of_tensors_is_read(tmp_path: Path, ending: str) -> None:
    torch.save({"input": torch.ones(2)}, tmp_path / f"x.{ending}")

    assert torch.equal(inputs(f"{tmp_path}/x.{ending}")[1]["input"], torch.ones(2))


def test_a_torch_file_of_one_tensor_is_given_by_position(tmp_path: Path) -> None:
    torch.save(torch.ones(2), tmp_path / "x.pt")

    assert torch.equal(inputs(f"{tmp_path}/x.pt")[0][0], torch.ones(2))


def test_a_torch_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"input": Trap(str(tmp_path / "sprung"))}, tmp_path / "x.pt")

    assert "nothing else is unpickled" in complaint(f"{tmp_path}/x.pt")
    assert not (tmp_path / "sprung").exists()


class Trap:
    """What makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def test_an_npz_file_of_objects_is_refused(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "x.npz", input=numpy.array([None, {}], dtype=object))

    assert "allow_pickle=False" in complaint(f"{tmp_path}/x.npz")


@pytest.mark.parametrize("ending", ["safetensors", "npz", "json", "pt"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, ending: str) -> None:
    assert complaint(f"{tmp_path}/no.{ending}") == f"no inputs file {tmp_path}/no.{ending}"


@pytest.mark.parametrize("ending", ["safetensors", "npz", "json", "pt"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"x.{ending}").write_text("nonsense")

    assert f"{tmp_path}/x.{ending}" in complaint(f"{tmp_path}/x.{ending}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", 'must hold named tensors, as in {"input_ids": [[1, 2, 3]]}'),
        ('{"ids": [[1, 2], [3]]}', "'ids' in "),
        ('{"ids": ["one"]}', "is not a tensor: "),
    ],
)
def test_a_json_file_of_something_else_is_explained(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.json").write_text(text)

    assert said in complaint(f"{tmp_path}/x.json")


# SPEC: objects


def test_a_tensor_by_name_is_one_argument(folder: Path) -> None:
    (batch,), kwargs = inputs("net.py:batch")

    assert batch.shape == (3, 4)
    assert kwargs == {}


def test_a_list_by_name_is_the_arguments(folder: Path) -> None:
    args, _ = inputs("net.py:arguments")

    assert args[1] == 7


def test_a_dict_by_name_is_the_named_arguments(folder: Path) -> None:
    args, kwargs = inputs("net:named")

    assert args == ()
    assert list(kwargs) == ["input"]


def test_a_function_by_name_is_called_for_them(folder: Path) -> None:
    args, _ = inputs("net.py:make_batch")

    assert args[1] is None


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            "net.py:number",
            "inputs must be a tensor, a tuple of arguments or a dict of named ones; net.py:number gives an int",
        ),
        ("net.py:nobatch", "net.py has no 'nobatch'; nearest: batch"),
        ("net.py:broken", "raised KeyError: 'weights' (net.py:30)"),
        ("nosuch.py:batch", "no file nosuch.py"),
    ],
)
def test_an_object_that_gives_no_inputs_is_explained_in_a_line(folder: Path, spec: str, said: str) -> None:
    assert said in complaint(spec)


# The loss


def test_the_loss_of_an_output_that_has_one_is_that() -> None:
    loss = torch.tensor(2.0, requires_grad=True)

    assert scalar_loss(SimpleNamespace(loss=loss)).item() == 2.0


def test_default_loss_is_mean_square_of_differentiable_outputs() -> None:
    output = {
        "a": torch.tensor([1.0, 3.0], requires_grad=True),
        "b": [torch.tensor([2.0], requires_grad=True)],
        "fixed": torch.tensor([100.0]),
        "ids": torch.tensor([100]),
    }

    assert scalar_loss(output).item() == pytest.approx((1 + 9 + 4) / 3)


def test_a_loss_of_half_precision_does_not_overflow() -> None:
    assert scalar_loss(torch.full((4,), 3e4, dtype=torch.float16, requires_grad=True)).item() == pytest.approx(
        9e8, rel=1e-3
    )


def test_an_output_without_a_gradient_says_how_to_go_on() -> None:
    with pytest.raises(SourceError, match="use --no-grads"):
        scalar_loss(torch.ones(2))


# Errors in a line


def test_an_error_without_a_message_is_its_class() -> None:
    assert explain(AssertionError()) == "AssertionError"


def test_an_error_of_many_lines_is_one_line() -> None:
    assert explain(ValueError("one\n  two\n")) == "ValueError: one two"

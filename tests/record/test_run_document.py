"""Tests that a run comes back from disk as it was, that a damaged one says what is wrong with it, and that docs/format.md is true."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from toys import Gives

import hookline
from hookline import ChangedTensorError, Run, StoreError
from hookline.model.tensors import Fields, Opaque, mirror
from hookline.record.record import TensorInfo
from hookline.record.run_document import from_document, to_document
from hookline.record.values import KINDS
from hookline.store.codec import USUAL

PAGE = Path(__file__).parents[2] / "docs" / "format.md"


@dataclass
class Answer:
    values: Tensor
    items: int


def recorded(make: Callable[..., Any], *args: Any, settings: dict[str, Any] | None = None, **kwargs: Any) -> Run:
    model = Gives(make)
    with hookline.watch(model, **(settings or {})) as run:
        model(*args, **kwargs)
    return run


def again(run: Run, folder: Path) -> Run:
    run.save(folder / "run")
    return hookline.load(folder / "run")


def plain(data: Any) -> Any:
    """Recorded data with each tensor as all that is known of it, so that two of them compare."""
    return mirror(
        data,
        lambda info: (info.shape, info.dtype, info.device, info.requires_grad, repr(info.stats), plain(info.grad)),
        kind=TensorInfo,
    )


@pytest.fixture(scope="module")
def trained() -> Run:
    """Two steps of a small network with a module that is called twice, one of two paths, and one that is not called."""
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared, nn.Tanh()))
    model.unused = nn.Identity()
    model.forward = lambda x: model[2](model[1](model[0](x)))
    with hookline.watch(model, keep="tensor", inputs="stats", grads=True) as run:
        model(torch.randn(2, 4)).sum().backward()
        model(torch.randn(2, 4)).sum().backward()
    return run


# Round trip


def test_a_run_comes_back_with_its_head(trained: Run, tmp_path: Path) -> None:
    loaded = again(trained, tmp_path)

    assert (loaded.model, loaded.modules, loaded.aliases) == (trained.model, trained.modules, trained.aliases)
    assert loaded.settings == trained.settings
    assert loaded.never_called == trained.never_called == ["unused"]


@pytest.mark.parametrize(
    "name", ["path", "index", "type", "number", "began", "seconds", "thread", "training", "error", "depth"]
)
def test_a_call_comes_back_with_its(trained: Run, tmp_path: Path, name: str) -> None:
    loaded = again(trained, tmp_path)

    assert [getattr(call, name) for call in loaded] == [getattr(call, name) for call in trained]


def test_the_tree_comes_back(trained: Run, tmp_path: Path) -> None:
    loaded = again(trained, tmp_path)

    assert [call.parent and call.parent.number for call in loaded] == [
        call.parent and call.parent.number for call in trained
    ]
    assert loaded["2.0", -1].parent is loaded["2", 1]


@pytest.mark.parametrize("name", ["args", "kwargs", "output", "grad_output"])
def test_what_is_known_of_tensors_comes_back(trained: Run, tmp_path: Path, name: str) -> None:
    loaded = again(trained, tmp_path)

    assert [plain(getattr(call, name)) for call in loaded] == [plain(getattr(call, name)) for call in trained]


def test_kept_tensors_come_back(trained: Run, tmp_path: Path) -> None:
    loaded = again(trained, tmp_path)

    assert all(torch.equal(new.output.value, old.output.value) for new, old in zip(loaded, trained, strict=True))


def test_kept_gradients_come_back(trained: Run, tmp_path: Path) -> None:
    loaded = again(trained, tmp_path)

    assert all(
        torch.equal(new.output.grad.value, old.output.grad.value) for new, old in zip(loaded, trained, strict=True)
    )


def test_a_loaded_run_reads_as_the_run_did(trained: Run, tmp_path: Path) -> None:
    loaded = again(trained, tmp_path)

    assert repr(loaded) == repr(trained)
    assert loaded._repr_html_() == trained._repr_html_()
    assert loaded.to_pandas().equals(trained.to_pandas())


def test_a_loaded_run_saves_as_the_run_did(trained: Run, tmp_path: Path) -> None:
    again(again(trained, tmp_path / "one"), tmp_path / "two")

    first, second = ((tmp_path / name / "run" / "run.json").read_bytes() for name in ("one", "two"))
    assert first == second


def test_an_empty_run_comes_back(tmp_path: Path) -> None:
    with hookline.watch(nn.ReLU()) as run:
        pass

    assert len(again(run, tmp_path)) == 0


def test_a_call_that_raised_comes_back(tmp_path: Path) -> None:
    def fail(x: Tensor) -> Tensor:
        raise ValueError("of the model")

    model = Gives(fail)
    with pytest.raises(ValueError), hookline.watch(model) as run:
        model(torch.ones(1))
    loaded = again(run, tmp_path)

    assert (loaded[""].error, loaded[""].output) == ("ValueError: of the model", None)


LEAVES = [
    None,
    True,
    3,
    10**30,
    1.5,
    -0.0,
    math.inf,
    -math.inf,
    2 - 3j,
    complex(math.inf, 0),
    "text ☃",
    [1, [2.5]],
    (1, (None,)),
    [],
    (),
    {},
    {"a": {"b": (1, 2)}},
    {1: "int", "1": "text", None: "none", 0.5: "float", False: "bool", 2j: "complex", math.inf: "infinite"},
    object(),
    [object(), {"cache": object()}],
    Fields("Answer", {"values": 1, "kind": (2,), "type": None}),
    {"kind": "tensor"},
]


@pytest.mark.parametrize("value", LEAVES, ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", repr(value)))
def test_a_value_comes_back(value: Any, tmp_path: Path) -> None:
    run = recorded(lambda given: given, value)
    loaded = again(run, tmp_path)

    assert repr(loaded[""].output) == repr(run[""].output)
    assert loaded[""].output == run[""].output
    assert loaded[""].args == run[""].args


def test_nan_comes_back(tmp_path: Path) -> None:
    loaded = again(recorded(lambda: (math.nan, complex(math.nan, 1), {math.nan: 1})), tmp_path)
    number, pair, mapping = loaded[""].output

    assert math.isnan(number)
    assert math.isnan(pair.real)
    assert math.isnan(next(iter(mapping)))


def test_fields_and_opaque_come_back_as_such(tmp_path: Path) -> None:
    output = again(recorded(lambda x: (Answer(x, 2), object()), torch.ones(2)), tmp_path)[""].output

    assert (output[0].type, output[0].values.shape, output[0].items) == ("Answer", (2,), 2)
    assert output[1] == Opaque("object")


def test_keyword_arguments_come_back(tmp_path: Path) -> None:
    run = recorded(lambda **given: None, mask=torch.ones(2), scale=0.5)

    assert plain(again(run, tmp_path)[""].kwargs) == plain(run[""].kwargs)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([math.nan, math.inf, 0.0]),
        torch.tensor([-math.inf]),
        torch.empty(0, 3),
        torch.tensor(2.0),
        torch.empty(2, device="meta"),
        torch.tensor([1 + 2j]),
        torch.zeros(2).to(torch.float8_e4m3fn),
        torch.zeros(3).to_sparse(),
    ],
    ids=["nan", "infinite", "empty", "scalar", "meta", "complex", "float8", "sparse"],
)
def test_statistics_of_any_tensor_come_back(tensor: Tensor, tmp_path: Path) -> None:
    run = recorded(lambda: tensor)

    assert plain(again(run, tmp_path)[""].output) == plain(run[""].output)


def test_a_jagged_tensor_comes_back(tmp_path: Path) -> None:
    tensor = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
    loaded = again(recorded(lambda: tensor), tmp_path)

    assert (loaded[""].output.shape, loaded[""].output.mean) == ((2, -1), 1.0)


@pytest.mark.parametrize("keep", ["tensor", "copy"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.complex64], ids=str)
def test_a_kept_tensor_comes_back_with_every_bit(keep: str, dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = torch.tensor([0, 1, 3]).to(dtype)
    loaded = again(recorded(lambda: tensor, settings={"keep": keep}), tmp_path)[""].output

    assert loaded.value.dtype is dtype
    assert torch.equal(loaded.value, tensor)


def test_tensor_kept_by_several_calls_is_stored_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Sequential(nn.Tanh()))
    with hookline.watch(model, keep="tensor") as run:
        model(torch.ones(2))
    loaded = again(run, tmp_path)

    assert loaded[""].output.value is loaded["0"].output.value is loaded["0.0"].output.value
    assert list(to_document(run)[1]) == ["0.output"]


def test_views_of_one_storage_come_back_each(tmp_path: Path) -> None:
    loaded = again(
        recorded(lambda x: (x, x[1:], x.view(2, 2)), torch.arange(4.0), settings={"keep": "tensor"}), tmp_path
    )

    assert [info.value.tolist() for info in loaded[""].outputs] == [
        [0.0, 1.0, 2.0, 3.0],
        [1.0, 2.0, 3.0],
        [[0.0, 1.0], [2.0, 3.0]],
    ]


@pytest.mark.parametrize(
    ("keep", "values"),
    [
        (lambda tensor: tensor.tolist(), [1.0, 5.0]),
        (lambda tensor: (tensor.min().item(), "largest", {"at": int(tensor.argmax())}), (1.0, "largest", {"at": 1})),
        (lambda tensor: math.inf, math.inf),
        (lambda tensor: None, None),
        (lambda tensor: tensor.mean() > 2, torch.tensor(True)),
        (lambda tensor: (tensor.min(), {"max": tensor.max()}), (torch.tensor(1.0), {"max": torch.tensor(5.0)})),
    ],
    ids=["list", "tuple and dict", "infinite", "none", "tensor", "tensors"],
)
def test_what_a_keep_function_gave_comes_back(keep: Any, values: Any, tmp_path: Path) -> None:
    loaded = again(recorded(lambda: torch.tensor([1.0, 5.0]), settings={"keep": keep}), tmp_path)

    assert loaded[""].output.value == values
    assert type(loaded[""].output.value) is type(values)


# What cannot be saved


@pytest.mark.parametrize(
    "keep",
    [lambda tensor: object(), lambda tensor: [1, {"deep": b"bytes"}], Tensor.numpy],
    ids=["object", "bytes", "array"],
)
def test_what_json_cannot_hold_is_refused_by_name(keep: Any, tmp_path: Path) -> None:
    run = recorded(lambda: torch.ones(1), settings={"keep": keep})

    with pytest.raises(StoreError, match=r"0\.output.* holds an? (object|bytes|ndarray); only tensors, numbers, text"):
        run.save(tmp_path / "run")

    assert list(tmp_path.iterdir()) == []


def test_a_tensor_that_was_changed_since_cannot_be_saved(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    with hookline.watch(model, keep="tensor") as run:
        model(torch.ones(2))

    with pytest.raises(ChangedTensorError, match=r"float32\[2\] tensor was changed in place .*keep='copy'"):
        run.save(tmp_path / "run")

    assert list(tmp_path.iterdir()) == []


def test_saving_names_the_call_whose_tensor_was_changed_since(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Identity())
    with hookline.watch(model, "0", keep="tensor") as run:
        model(torch.ones(2))
        model(torch.ones(2)).add_(1)

    with pytest.raises(ChangedTensorError, match=r"^cannot save 0 \(Identity, call 1\): this float32\[2\] tensor"):
        run.save(tmp_path / "run")


def test_saving_names_the_model_whose_tensor_was_changed(tmp_path: Path) -> None:
    model = nn.Linear(2, 2).requires_grad_(False)
    with hookline.watch(model, keep="tensor") as run:
        model(torch.ones(2)).add_(1)

    with pytest.raises(ChangedTensorError, match=r"^cannot save the model \(Linear, call 0\): "):
        run.save(tmp_path / "run")


def test_a_sparse_tensor_that_was_kept_cannot_be_saved(tmp_path: Path) -> None:
    run = recorded(lambda: torch.zeros(3).to_sparse(), settings={"keep": "tensor"})

    with pytest.raises(StoreError, match=r"0\.output cannot be saved"):
        run.save(tmp_path / "run")


# Damage


def document_of(run: Run) -> tuple[dict[str, Any], dict[str, Tensor]]:
    document, tensors = to_document(run)
    return json.loads(json.dumps(document)), tensors


def test_a_missing_tensor_is_named(trained: Run) -> None:
    document, tensors = document_of(trained)
    del tensors["1.output"]

    with pytest.raises(StoreError, match=r"output\.value\.name names a tensor '1\.output' that is not in tensors"):
        from_document(document, tensors)


def test_a_missing_tensors_file_is_found_out(trained: Run, tmp_path: Path) -> None:
    trained.save(tmp_path / "run")
    (tmp_path / "run" / "tensors.safetensors").unlink()

    with pytest.raises(StoreError, match=r"run\.json is damaged: .* names a tensor '.*' that is not in tensors"):
        hookline.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "other", "says"),
    [
        (
            "1.output",
            torch.ones(3),
            r"calls\[1\]\.output\.value: expected a tensor float32\[2, 4\], .* got float32\[3\]",
        ),
        ("1.output", torch.ones(2, 4, dtype=torch.half), r"calls\[1\]\.output\.value: .* got float16\[2, 4\]"),
        ("1.output.grad", torch.ones(4, 2), r"calls\[1\]\.output\.grad\.value: .* got float32\[4, 2\]"),
    ],
)
def test_tensor_of_other_shape_or_dtype_is_damage(trained: Run, name: str, other: Tensor, says: str) -> None:
    document, tensors = document_of(trained)

    with pytest.raises(StoreError, match=says):
        from_document(document, {**tensors, name: other})


def test_kept_inputs_of_another_shape_are_damage() -> None:
    document, tensors = document_of(recorded(lambda x: x, torch.ones(2, 4), settings={"inputs": "copy"}))

    with pytest.raises(StoreError, match=r"args\.parts\[0\]\.value: expected a tensor float32\[2, 4\]"):
        from_document(document, {name: torch.ones(1) for name in tensors})


def test_result_of_a_function_named_copy_may_have_any_shape(tmp_path: Path) -> None:
    def copy(x: Tensor) -> Tensor:
        return x.sum()

    copy.__qualname__ = "copy"
    run = again(recorded(lambda x: x, torch.ones(2, 4), settings={"keep": copy}), tmp_path)

    assert run.calls[0].output.value.shape == ()


@pytest.mark.parametrize("parent", [2, 3, 99, -1])
def test_a_parent_that_does_not_come_before_is_named(trained: Run, parent: int) -> None:
    document, tensors = document_of(trained)
    document["calls"][2]["parent"] = parent

    with pytest.raises(
        StoreError, match=rf"calls\[2\].parent names call {parent} as the parent, which does not come before it"
    ):
        from_document(document, tensors)


@pytest.mark.parametrize("name", ["model", "modules", "aliases", "settings", "calls"])
def test_a_missing_part_of_the_head_is_named(trained: Run, name: str) -> None:
    document, tensors = document_of(trained)
    del document[name]

    with pytest.raises(StoreError, match=f"the document of this run is damaged: {name} is missing"):
        from_document(document, tensors)


@pytest.mark.parametrize(
    "name",
    ["path", "index", "type", "began", "seconds", "thread", "training", "error", "parent", "args", "kwargs", "output"],
)
def test_a_missing_part_of_a_call_is_named(trained: Run, name: str) -> None:
    document, tensors = document_of(trained)
    del document["calls"][3][name]

    with pytest.raises(StoreError, match=rf"damaged: calls\[3\]\.{name} is missing"):
        from_document(document, tensors)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "unheard of"}, r"\.kind: expected one of .*, got 'unheard of'"),
        ({"dtype": "float31"}, r"\.dtype: expected the name of a dtype, such as 'float32', got 'float31'"),
        ({"dtype": "nn"}, r"\.dtype: expected .*, got 'nn'"),
        ({"device": "abacus"}, r"\.device: expected .*, got 'abacus'"),
        ({"shape": 3}, r"\.shape: expected a list, got 3"),
        ({"shape": [1, -2]}, r"\.shape\[1\]: expected a whole number of at least -1, got -2"),
        ({"stats": {"mean": 1.0}}, r"\.stats\.count is missing"),
        ({"grad": {}}, r"\.grad\.shape is missing"),
        ({"required_grad": True}, r" unknown member 'required_grad'"),
    ],
    ids=lambda part: str(part),
)
def test_a_tensor_that_makes_no_sense_is_damage(trained: Run, change: dict[str, Any], said: str) -> None:
    document, tensors = document_of(trained)
    document["calls"][1]["output"].update(change)

    with pytest.raises(StoreError, match=rf"damaged: calls\[1\]\.output{said}"):
        from_document(document, tensors)


@pytest.mark.parametrize("calls", [None, 3, [None], ["text"], [[]]], ids=repr)
def test_calls_that_are_no_calls_are_damage(trained: Run, calls: Any) -> None:
    document, tensors = document_of(trained)

    with pytest.raises(StoreError, match="the document of this run is damaged"):
        from_document({**document, "calls": calls}, tensors)


def test_a_run_of_another_version_is_not_read(trained: Run, tmp_path: Path) -> None:
    trained.save(tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    file.write_text(file.read_text().replace('"version": 2', '"version": 3', 1))

    with pytest.raises(StoreError, match="has format version 3, and this hookline reads versions 1 to 2"):
        hookline.load(tmp_path / "run")


def test_a_run_of_version_1_is_read(trained: Run, tmp_path: Path) -> None:
    trained.save(tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    document = {**json.loads(file.read_text()), "version": 1}
    del document["rank"], document["world_size"]
    for call in document["calls"]:
        del call["recompute"]
    file.write_text(json.dumps(document))

    loaded = hookline.load(tmp_path / "run")

    assert [call.path for call in loaded] == [call.path for call in trained]
    assert (loaded.rank, loaded.world_size, loaded.calls[0].recompute) == (None, None, False)


# The page on the format


@pytest.fixture(scope="module")
def example() -> str:
    return re.search(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)


@pytest.fixture
def run_of_the_page(example: str, tmp_path: Path) -> Run:
    (tmp_path / "run.json").write_text(example)
    save_file({"0.output.0": torch.tensor([[0.5]])}, tmp_path / "tensors.safetensors")
    return hookline.load(tmp_path)


def test_the_example_of_the_page_loads(run_of_the_page: Run) -> None:
    assert [(call.path, call.parent and call.parent.path) for call in run_of_the_page] == [("", None), ("0", "")]


def test_the_example_of_the_page_holds_what_the_page_says(run_of_the_page: Run) -> None:
    outer, inner = run_of_the_page

    assert (outer.output.type, outer.output.values.shape, outer.output.cache) == ("Answer", (1, 1), Opaque("Cache"))
    assert outer.kwargs == {"scale": math.inf, "sizes": {1: (1, 2)}, "phase": 1j}
    assert (inner.output.value.tolist(), inner.output.grad.norm) == ([[0.5]], 1.0)
    assert math.isnan(inner.args[0].max)


def test_the_example_of_the_page_is_written_as_it_was_read(run_of_the_page: Run, example: str) -> None:
    document, tensors = to_document(run_of_the_page)

    assert {"format": "hookline", "version": 2, **document} == json.loads(example)
    assert list(tensors) == ["0.output.0"]


def test_the_page_names_every_kind_that_is_written(example: str) -> None:
    text = PAGE.read_text()
    assert all(f"`{kind}`" in text for kind in {*USUAL, *KINDS})
    assert all(f'"kind": "{kind}"' in example for kind in {*USUAL, *KINDS})


def test_a_histogram_comes_back_as_it_was(tmp_path: Path) -> None:
    model = torch.nn.Linear(4, 4)
    with hookline.watch(model, keep="histogram", grads=True) as run:
        model(torch.randn(8, 4)).sum().backward()

    run.save(tmp_path / "run")
    loaded = hookline.load(tmp_path / "run")

    assert loaded[""].output.stats == run[""].output.stats
    assert loaded[""].output.stats.histogram is not None
    assert loaded[""].output.grad.stats == run[""].output.grad.stats

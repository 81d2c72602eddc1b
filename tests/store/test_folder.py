"""Tests of the folder on disk: what it holds, that it is written whole or not at all, and what a damaged one is told."""

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from hookline import StoreError
from hookline.store import folder as storing
from hookline.store import place
from hookline.store.folder import TENSORS, read, write

DOCUMENT = "run.json"
DOCUMENT_DATA = {"name": "one", "parts": [1, None]}
SAVED = {"a": torch.arange(3.0), "b": torch.tensor([True])}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    write(tmp_path / "run", DOCUMENT_DATA, SAVED)
    return tmp_path / "run"


def test_the_tensors_are_as_readable_as_the_document(saved: Path) -> None:
    assert (saved / TENSORS).stat().st_mode == (saved / DOCUMENT).stat().st_mode


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def back(tensors: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    write(folder, {}, tensors)
    return read(folder)[1]


# Round trip


def test_a_document_and_its_tensors_come_back(saved: Path) -> None:
    document, tensors = read(saved)

    assert document == DOCUMENT_DATA
    assert list(tensors) == ["a", "b"]
    assert all(torch.equal(tensors[name], tensor) for name, tensor in SAVED.items())


def test_a_folder_holds_two_files(saved: Path) -> None:
    assert names(saved) == [DOCUMENT, TENSORS]


def test_without_tensors_a_folder_holds_the_document_alone(tmp_path: Path) -> None:
    write(tmp_path / "run", DOCUMENT_DATA, {})

    assert names(tmp_path / "run") == [DOCUMENT]
    assert read(tmp_path / "run")[1] == {}


def test_the_document_is_json_that_begins_with_its_format_and_version(saved: Path) -> None:
    assert (saved / DOCUMENT).read_text().startswith('{"format": "hookline", "version": 2, ')


def test_folders_above_are_made(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "run", DOCUMENT_DATA, {})

    assert read(tmp_path / "a" / "b" / "run")[0]["name"] == "one"


def test_a_folder_is_given_as_text_too(tmp_path: Path) -> None:
    write(f"{tmp_path}/run/", DOCUMENT_DATA, {})

    assert read(f"{tmp_path}/run")[0]["name"] == "one"


def test_a_folder_is_found_from_where_the_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("run", DOCUMENT_DATA, {})

    assert names(tmp_path) == ["run"]


def test_text_of_any_language_comes_back(tmp_path: Path) -> None:
    write(tmp_path / "run", {"name": "Schicht ☃ \ud800"}, {})

    assert read(tmp_path / "run")[0]["name"] == "Schicht ☃ \ud800"


# Kinds of tensor

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.complex64,
]
DTYPES += [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.uint32,
    torch.int64,
    torch.uint64,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tensor_comes_back_with_its_dtype_and_every_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.tensor([0, 1, 3]).to(dtype)
    (found,) = back({"a": tensor}, tmp_path / "run").values()

    assert found.dtype is dtype
    assert torch.equal(found.view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize(
    "tensor", [torch.tensor(3.0), torch.empty(0, 2), torch.arange(6.0).view(2, 3).t(), torch.zeros(1).expand(4)]
)
def test_a_tensor_of_any_shape_and_strides_comes_back(tmp_path: Path, tensor: Tensor) -> None:
    (found,) = back({"a": tensor}, tmp_path / "run").values()

    assert torch.equal(found, tensor)


def test_nan_and_infinities_of_a_tensor_come_back(tmp_path: Path) -> None:
    tensor = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0])
    (found,) = back({"a": tensor}, tmp_path / "run").values()

    assert torch.equal(found.view(torch.int32), tensor.view(torch.int32))


def test_a_tensor_with_a_graph_is_saved_without_it(tmp_path: Path) -> None:
    tensor = torch.ones(2, requires_grad=True) * 2

    assert not back({"a": tensor}, tmp_path / "run")["a"].requires_grad
    assert tensor.requires_grad


@pytest.mark.parametrize(
    "view",
    [lambda whole: whole, lambda whole: whole[1:], lambda whole: whole.view(2, 3), lambda whole: whole.detach()],
    ids=["same", "part", "reshaped", "detached"],
)
def test_tensors_that_share_memory_are_saved_each(tmp_path: Path, view: Callable[[Tensor], Tensor]) -> None:
    whole = torch.arange(6.0)
    found = back({"a": whole, "b": view(whole), "c": whole[:2]}, tmp_path / "run")

    assert torch.equal(found["a"], whole)
    assert torch.equal(found["b"], view(whole))
    assert torch.equal(found["c"], whole[:2])


def test_a_conjugated_tensor_is_saved_as_it_reads(tmp_path: Path) -> None:
    tensor = torch.tensor([1 + 2j]).conj()
    found = back({"a": tensor, "b": torch._neg_view(torch.ones(2))}, tmp_path / "run")

    assert found["a"].tolist() == [1 - 2j]
    assert found["b"].tolist() == [-1.0, -1.0]


def quiet(make: Callable[[], Tensor]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(beta state|prototype stage|deprecated)")
        return make()


def fake() -> Tensor:
    with FakeTensorMode():
        return torch.zeros(3)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.zeros(3).to_sparse(), "one of layout torch.sparse_coo"),
        (lambda: torch.zeros(3, 3).to_sparse_csr(), "one of layout torch.sparse_csr"),
        (lambda: torch.empty(3, device="meta"), "one without data"),
        (fake, "one without data"),
        (lambda: torch.nested.nested_tensor([torch.zeros(3)]), "a nested one"),
        (lambda: torch.nested.nested_tensor([torch.zeros(3)], layout=torch.jagged), "a nested one"),
        (lambda: torch.quantize_per_tensor(torch.zeros(3), 0.5, 0, torch.qint8), "a quantized one"),
    ],
    ids=["coo", "csr", "meta", "fake", "nested", "jagged", "quantized"],
)
def test_a_tensor_that_is_not_dense_is_refused_by_name(tmp_path: Path, make: Callable[[], Tensor], kind: str) -> None:
    with pytest.raises(StoreError, match=f"^0.output cannot be saved: only dense tensors can be, and this is {kind}$"):
        write(tmp_path / "run", {}, {"0.output": quiet(make)})


def test_a_dtype_that_safetensors_does_not_know_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"^0\.output of dtype torch\.complex128 cannot be saved"):
        write(tmp_path / "run", {}, {"a": torch.zeros(1), "0.output": torch.zeros(2, dtype=torch.complex128)})


# Whole or not at all


def break_while_saving(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def save_file(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(storing, "save_file", save_file)


ERRORS = [OSError("no space left"), RuntimeError("gone"), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_write_that_fails_midway_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    break_while_saving(monkeypatch, error)

    with pytest.raises((StoreError, KeyboardInterrupt)):
        write(tmp_path / "run", DOCUMENT_DATA, SAVED)

    assert names(tmp_path) == []


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_write_that_fails_midway_leaves_the_old_run(
    saved: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    break_while_saving(monkeypatch, error)

    with pytest.raises((StoreError, KeyboardInterrupt)):
        write(saved, {"name": "two"}, SAVED)

    assert names(saved.parent) == ["run"]
    assert read(saved)[0]["name"] == "one"


@pytest.mark.parametrize("error", [OSError("not now"), KeyboardInterrupt()], ids=lambda error: type(error).__name__)
def test_a_last_step_that_fails_leaves_the_old_run(
    saved: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def failing(one: Path, other: Path) -> bool:
        raise error

    monkeypatch.setattr(place, "exchange", failing)

    with pytest.raises((StoreError, KeyboardInterrupt)):
        write(saved, {"name": "two"}, {})

    assert names(saved.parent) == ["run"]
    assert read(saved)[0]["name"] == "one"


def test_a_write_that_fails_says_where_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_while_saving(monkeypatch, OSError("no space left"))

    with pytest.raises(StoreError, match=f"cannot save to {tmp_path}/run: no space left"):
        write(tmp_path / "run", DOCUMENT_DATA, SAVED)


@pytest.mark.parametrize("document", [{"a": float("nan")}, {"a": object()}], ids=["nan", "object"])
def test_a_document_that_is_no_json_is_refused(tmp_path: Path, document: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match="cannot save to"):
        write(tmp_path / "run", document, {})

    assert names(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_a_store_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="cannot save to"):
            write(tmp_path / "run", {}, {})
    finally:
        tmp_path.chmod(0o700)


def test_a_path_through_a_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="cannot save to"):
        write(tmp_path / "file" / "run", {}, {})


# What was there before


def test_a_saved_run_is_replaced(saved: Path) -> None:
    write(saved, {"name": "two"}, {})

    assert read(saved) == ({"name": "two"}, {})
    assert names(saved) == [DOCUMENT]
    assert names(saved.parent) == ["run"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()

    write(tmp_path / "run", DOCUMENT_DATA, {})

    assert read(tmp_path / "run")[0]["name"] == "one"


def test_through_a_link_the_folder_behind_it_is_replaced(saved: Path) -> None:
    link = saved.parent / "latest"
    link.symlink_to(saved)

    write(link, {"name": "two"}, {})

    assert link.is_symlink()
    assert read(saved)[0]["name"] == "two"


def other_file(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")


def run_and_more(folder: Path) -> None:
    write(folder, {}, {})
    other_file(folder)


def document_of_something_else(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / DOCUMENT).write_text('{"loss": [3.0]}')


@pytest.mark.parametrize("fill", [other_file, run_and_more, document_of_something_else])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, fill: Callable[[Path], None]) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    fill(target)
    before = {path.name: path.read_bytes() for path in target.iterdir()}

    with pytest.raises(StoreError, match="folder exists and is not a saved run; give another folder, or remove it"):
        write(target, DOCUMENT_DATA, {})

    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert names(tmp_path) == ["folder"]


def test_a_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")

    with pytest.raises(StoreError, match="run exists and is not a saved run"):
        write(tmp_path / "run", DOCUMENT_DATA, {})

    assert (tmp_path / "run").read_text() == "mine"


# Damage


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere is not a folder; pass the one that a run"):
        read(tmp_path / "nowhere")


def test_a_folder_without_a_document_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no run\.json, so it is not a saved run"):
        read(tmp_path)


def damage(saved: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (saved / name).write_bytes(change((saved / name).read_bytes()))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: b"",
        lambda text: b"\xff\xfe" + text,
        lambda text: text.replace(b"null", b"NaN"),
        lambda text: text.replace(b"null", b"[" * 100_000),
    ],
    ids=["truncated", "empty", "not utf-8", "bare NaN", "too deep"],
)
def test_a_document_that_does_not_parse_is_damaged(saved: Path, change: Callable[[bytes], bytes]) -> None:
    damage(saved, DOCUMENT, change)

    with pytest.raises(StoreError, match=r"run\.json is damaged: "):
        read(saved)


@pytest.mark.parametrize("text", ["[]", '"hookline"', "{}", '{"format": "other", "version": 1}'])
def test_a_document_of_another_format_is_not_ours(saved: Path, text: str) -> None:
    (saved / DOCUMENT).write_text(text)

    with pytest.raises(StoreError, match=r"run\.json is not a hookline document"):
        read(saved)


@pytest.mark.parametrize("version", [0, 3, "1", None, True])
def test_a_document_of_another_version_is_not_read(saved: Path, version: Any) -> None:
    (saved / DOCUMENT).write_text(json.dumps({"format": "hookline", "version": version}))

    with pytest.raises(StoreError, match=f"has format version {version!r}, and this hookline reads versions 1 to 2"):
        read(saved)


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data[:20], lambda data: b"", lambda data: b"\xff" * 8 + data]
)
def test_a_tensors_file_that_does_not_parse_is_damaged(saved: Path, change: Callable[[bytes], bytes]) -> None:
    damage(saved, TENSORS, change)

    with pytest.raises(StoreError, match=r"tensors\.safetensors is damaged: "):
        read(saved)


def test_a_document_that_is_a_folder_is_damaged(tmp_path: Path) -> None:
    (tmp_path / DOCUMENT).mkdir()

    with pytest.raises(StoreError, match=r"run\.json is not a file but a folder"):
        read(tmp_path)


def test_the_tensors_file_is_safetensors(saved: Path) -> None:
    with safe_open(saved / TENSORS, framework="pt") as file:
        assert sorted(file.keys()) == ["a", "b"]


def test_document_of_another_kind_is_not_replaced_by_a_run(tmp_path: Path) -> None:
    write(tmp_path / "edit", DOCUMENT_DATA, SAVED, kind="edit")
    assert names(tmp_path / "edit") == ["edit.json", TENSORS]
    with pytest.raises(StoreError, match="not a saved run"):
        write(tmp_path / "edit", DOCUMENT_DATA, SAVED)
    assert read(tmp_path / "edit", kind="edit")[0]["name"] == "one"


# Odd names, and what is not a file


BAD_NAMES = {"long": "x" * 300, "NUL": "a\0b", "surrogate": "a\ud800b", "deep": "x/" * 3000}


@pytest.mark.parametrize(
    "use", [read, storing.expect_folder, storing.is_saved, lambda folder: write(folder, {}, {})], ids=range(4)
)
@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_name_that_no_folder_can_have_is_one_error(tmp_path: Path, name: str, use: Callable[[Any], Any]) -> None:
    with pytest.raises(StoreError, match="cannot be the name of a file or folder: ") as caught:
        use(tmp_path / name)

    assert len(str(caught.value)) < 250


def test_a_name_of_255_characters_is_saved(tmp_path: Path) -> None:
    for _ in range(2):
        write(tmp_path / ("x" * 255), DOCUMENT_DATA, SAVED)

    assert read(tmp_path / ("x" * 255))[0]["name"] == "one"


@pytest.mark.parametrize("name", [DOCUMENT, TENSORS])
def test_a_named_pipe_is_refused_and_not_waited_for(saved: Path, name: str) -> None:
    (saved / name).unlink()
    os.mkfifo(saved / name)

    with pytest.raises(StoreError, match=f"{name} is not a file but a named pipe"):
        read(saved)


@pytest.mark.parametrize("name", [DOCUMENT, TENSORS])
def test_a_device_is_refused(saved: Path, name: str) -> None:
    (saved / name).unlink()
    (saved / name).symlink_to("/dev/zero")

    with pytest.raises(StoreError, match=f"{name} is not a file but a device"):
        read(saved)


def test_a_folder_with_a_named_pipe_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / DOCUMENT)

    with pytest.raises(StoreError, match="run exists and is not a saved run"):
        write(tmp_path / "run", {}, {})

"""Data sets by name for commands that run a model over one: files, objects of modules, the tokenizer beside a model."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookline import demo
from hookline.cli.sources import DEMO, explain, kind_of_file, load_model, names_object, object_named, path_named
from hookline.errors import SourceError

if TYPE_CHECKING:
    from torch.nn import Module

    from hookline.capturing.rows import Rows

FILES = ".jsonl, .json, .csv, .txt, .npy or .safetensors"


@dataclass(frozen=True, slots=True)
class Task:
    """A model, the data set that it is run over, and what makes inputs of a batch; None where examples are collated."""

    model: Module
    data: Any
    call: Callable[[Any], Any] | None


def load_task(model: str, data: str, call: str | None, text: str) -> Task:
    """What a command's MODEL, --data, --call and --text name."""
    loaded, examples = load_model(model).eval(), load_data(data)
    return Task(loaded, examples, tokenizing(model, text) if call is None else load_function(call, "--call"))


def rows_of(mask: str | None, position: list[int] | None, sample: int | None, seed: int) -> Rows | None:
    """The rows that the options of a command name; None where an example is one row."""
    from hookline.capturing.rows import rows

    by_position = mask is not None or position or sample is not None
    return rows(mask=mask, positions=position or None, sample=sample, seed=seed) if by_position else None


def load_data(spec: str) -> Any:
    """The data set that a --data SPEC names, which is one of

    - `demo`: the digits that hookline ships;
    - a file: .jsonl (an object a line), .json (a list), .csv (a header), .txt (a text a line, as the field "text"),
      .npy or .safetensors with one array (examples along dimension 0);
    - `package.module:name` or `path/file.py:name`: a data set, or a function without arguments that returns one.

    Raises SourceError, a line that says what could not be loaded.
    """
    if spec == DEMO:
        return demo.digits()[0]
    if names_object(spec) and not path_named(spec).is_file():
        return object_named(spec, ())
    file = path_named(spec)
    if not file.is_file():
        kind = kind_of_file(file)
        raise SourceError(f"no data {spec!r}{f': it is {kind}' if kind else ''}; give a file ({FILES}) or module:name")
    read = READERS.get(file.suffix)
    if read is None:
        raise SourceError(f"cannot read {spec} as a data set; give {FILES}, or module:name")
    try:
        return read(file)
    except Exception as error:
        raise SourceError(f"cannot read {spec}: {explain(error)}") from error


def load_function(spec: str, of: str) -> Callable[..., Any]:
    """The function that `module:name` or `file.py:name` names."""
    found = object_named(spec, Callable) if names_object(spec) else None  # type: ignore[arg-type]
    if not callable(found):
        raise SourceError(f"{of} takes a function as module:name or file.py:name, not {spec!r}")
    return found  # type: ignore[no-any-return]


def tokenizing(model_spec: str, field: str) -> Callable[[Any], Any] | None:
    """What makes inputs of texts: the tokenizer that lies in the folder of a model; None where there is none."""
    folder = path_named(model_spec)
    if model_spec == DEMO or not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        return None
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise SourceError(f"cannot load the tokenizer in {folder}: {explain(error)}") from error

    def call(batch: Any) -> Any:
        texts = batch[field] if isinstance(batch, dict) else batch
        return tokenizer([*texts], padding=True, truncation=True, return_tensors="pt")

    return call


def _jsonl(file: Path) -> list[Any]:
    with open(file, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def _json(file: Path) -> list[Any]:
    found = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(found, list):
        raise SourceError(f"it holds a {type(found).__name__}, not a list of examples")
    return found


def _csv(file: Path) -> list[Any]:
    with open(file, encoding="utf-8", newline="") as lines:
        return [*csv.DictReader(lines)]


def _txt(file: Path) -> list[Any]:
    return [{"text": line} for line in file.read_text(encoding="utf-8").splitlines()]


def _npy(file: Path) -> Any:
    import numpy
    import torch

    return torch.from_numpy(numpy.load(file, allow_pickle=False))


def _safetensors(file: Path) -> Any:
    from safetensors.torch import load_file

    found = load_file(file)
    if len(found) != 1:
        raise SourceError(f"it holds {len(found)} tensors: {', '.join(found)}; one is needed")
    return next(iter(found.values()))


READERS: dict[str, Callable[[Path], Any]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".txt": _txt,
    ".npy": _npy,
    ".safetensors": _safetensors,
}

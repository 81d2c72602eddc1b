"""Load the model that a MODEL names, and the inputs that an --inputs SPEC describes."""

import difflib
import importlib
import importlib.util
import json
import os
import re
import sys
import sysconfig
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy

from hookline import demo
from hookline.errors import SourceError, StoreError
from hookline.model.loss import default_loss
from hookline.store.opening import other_kind, path_of, shortened

Inputs: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]

DEMO = "demo"
DEMO_BATCH = 32
MODELS = "give demo, package.module:name, path/file.py:name, or a folder that holds a transformers model"
DESCRIPTIONS = "'input_ids=int64[1,16]<30522' or 'float32[8,3,32,32]'"
INPUTS = f"{DESCRIPTIONS}, a .safetensors, .npz, .json or .pt file, package.module:name or path/file.py:name"

DIGITS = 19  # of the largest int64
DTYPES = {
    "float": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "int": torch.int64,
    "int32": torch.int32,
    "int64": torch.int64,
    "bool": torch.bool,
}
DESCRIPTION = re.compile(
    r"(?:(?P<name>[A-Za-z_]\w*)\s*=\s*)?(?:torch\.)?(?P<dtype>[A-Za-z]+\d*)\s*"
    r"\[\s*(?P<shape>(?:\d+(?:\s*,\s*\d+)*)?)\s*\]\s*(?:<\s*(?P<high>\d+))?(?:\s*[,;]\s*|\s+|$)"
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, its inputs, and the loss that backward starts from."""

    model: Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    loss: Callable[[Any], Tensor]

    @property
    def own_loss(self) -> Callable[[Any], Tensor] | None:
        """The loss, if it is the model's own; None for the default loss."""
        return None if self.loss is scalar_loss else self.loss

    def forward(self) -> None:
        """Run one forward without a graph."""
        with torch.no_grad():
            self.model(*self.args, **self.kwargs)

    def forward_backward(self) -> None:
        """Run one forward, and one backward from the loss."""
        torch.autograd.backward(self.loss(self.model(*self.args, **self.kwargs)))


def load(model_spec: str, inputs_spec: str | None = None, *, train: bool | None = None) -> Subject:
    """Load the model that a MODEL names and the inputs of a SPEC; in train or eval mode, or in the mode it comes in.

    Raises SourceError, a line that says what could not be loaded, where, and what to pass instead.
    """
    model = load_model(model_spec)
    if train is not None:
        model.train(train)
    args, kwargs = load_inputs(inputs_spec, model, model_spec)
    return Subject(model, args, kwargs, demo_loss if model_spec == DEMO and inputs_spec is None else scalar_loss)


def load_model(spec: str) -> Module:
    """Load the model that a MODEL names, which is one of

    - `demo`: the small trained network that hookline ships;
    - `package.module:name` or `path/file.py:name`, where the name (also `a.b`) is a module, or a class or function
      without arguments that returns one. Meanwhile modules in the file's folder, or in the current one, can be
      imported;
    - a folder that holds a transformers model: config.json and weights.
    """
    if spec == DEMO:
        return demo.model()
    folder = path_named(spec)
    if folder.is_dir():
        return _from_folder(folder)
    if not names_object(spec):
        raise SourceError(f"no model {spec!r}: {_model_hint(spec)}")

    found = object_named(spec, Module)
    if not isinstance(found, Module):
        raise SourceError(
            f"{spec} is {_kind(found)}; name a torch.nn.Module, or a function without arguments that returns one"
        )
    return found


def load_inputs(spec: str | None, model: Module, model_spec: str) -> Inputs:
    """Load the (args, kwargs) of an --inputs SPEC, which is one of

    - a description: `input_ids=int64[1,16]<30522 mask=bool[1,16]`; a tensor without a name is positional. Floats are
      standard normal, integers random below the number after `<` (below 2 without one), always the same: the seed is 0;
    - a `.safetensors`, `.npz`, `.json` or `.pt` file of named tensors. Nothing but tensors is unpickled;
    - `package.module:name` or `path/file.py:name`: a tensor, a tuple or list of arguments, a dict of named ones, or a
      function that returns one of these;
    - None: a batch of 32 images for the demo, `dummy_inputs` for a transformers model that reads text.

    Tensors from a description or a file are moved to the model's device.
    """
    if spec is None:
        args, kwargs = _default_inputs(model, model_spec)
    elif Path(spec).suffix in READERS:
        args, kwargs = _from_file(path_named(spec))
    elif names_object(spec) and "[" not in spec:
        return _as_inputs(object_named(spec, (Tensor, tuple, list, Mapping)), spec)
    else:
        args, kwargs = _described(spec)

    device = _device(model)
    return tuple(_moved(value, device) for value in args), {
        name: _moved(value, device) for name, value in kwargs.items()
    }


def scalar_loss(output: Any) -> Tensor:
    """A scalar to call backward on: the output's `.loss`, else the mean square of its tensors that require a gradient.

    Raises SourceError if none of them does.
    """
    loss = default_loss(output)
    if loss is None:
        raise SourceError(
            "nothing in the model's output requires a gradient, so there is no backward to run; use --no-grads"
        )
    return loss


def demo_loss(output: Tensor) -> Tensor:
    """The cross entropy of the demo's logits [32, 10] and the digits in its batch."""
    return cross_entropy(output, demo.digits()[1][:DEMO_BATCH].to(output.device))


def explain(error: BaseException) -> str:
    """An exception in a line: its class, its message, and the file:line of the caller's code that it came from.

    >>> explain(ValueError("two\\n  lines"))
    'ValueError: two lines'
    """
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    place = _place(error)
    return ": ".join(filter(None, [type(error).__name__, " ".join(message.split())])) + (f" ({place})" if place else "")


def path_named(spec: str) -> Path:
    """A MODEL or SPEC as a path; SourceError if no file can have that name."""
    try:
        path = Path(spec).expanduser()
        path_of(path)
    except (StoreError, RuntimeError) as error:
        raise SourceError(str(error)) from None
    return path


def kind_of_file(file: Path) -> str:
    """What is there in the place of a file, such as a named pipe; "" if it is a file, or nothing is there."""
    try:
        return other_kind(file.stat())
    except OSError:
        return ""


# Objects by name


def names_object(spec: str) -> bool:
    """Whether a MODEL or SPEC has the form `source:name`."""
    source, _, name = spec.rpartition(":")
    return bool(source and name)


def object_named(spec: str, ready: type | tuple[type, ...]) -> Any:
    """What a `source:name` names; if it is a function or class, and not one of `ready`, what it returns."""
    source, _, name = spec.rpartition(":")
    file = path_named(source).resolve() if source.endswith(".py") else None
    with _importable(file.parent if file else Path.cwd()):
        found = _attribute(_imported(source, file), name, source)
        if isinstance(found, ready) or not callable(found):
            return found
        try:
            return found()
        except (Exception, SystemExit) as error:
            raise SourceError(f"{spec} was called without arguments and raised {explain(error)}") from error


def _imported(source: str, file: Path | None) -> ModuleType:
    if file and not file.is_file():
        kind = kind_of_file(file)
        raise SourceError(f"{source} is not a file but {kind}" if kind else f"no file {source}")
    try:
        return _run_file(file) if file else importlib.import_module(source)
    except (Exception, SystemExit) as error:
        raise SourceError(f"cannot import {source}: {explain(error)}") from error


def _run_file(file: Path) -> ModuleType:
    """The module of a file, run once however often it is asked for, under a unique name."""
    name = re.sub(r"\W", "_", f"{file.stem}_{zlib.crc32(os.fsencode(file)):08x}")
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


BESIDE: dict[Path, dict[str, ModuleType]] = {}  # by folder: the modules that were imported from it


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """A block in which modules of a folder can be imported, also if another folder had one of the same name."""
    entry, own = str(folder), BESIDE.setdefault(folder, {})
    for name, module in [each for whose, known in BESIDE.items() if whose != folder for each in known.items()]:
        if sys.modules.get(name) is module and _holds(folder, name.partition(".")[0]):
            del sys.modules[name]
            sys.modules.update({name: own[name]} if name in own else {})
    before = {*sys.modules}
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)
        own.update({name: sys.modules[name] for name in {*sys.modules} - before if _is_from(folder, name)})


def _holds(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or (folder / name).is_dir()


def _is_from(folder: Path, name: str) -> bool:
    """Whether a module is directly in a folder, or in a package that is."""
    top = name.partition(".")[0]
    if not _holds(folder, top):
        return False
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is not None and Path(file).resolve() in (folder / f"{top}.py", folder / top / "__init__.py")


def _attribute(holder: Any, name: str, source: str) -> Any:
    for part in name.split("."):
        try:
            holder = getattr(holder, part)
        except AttributeError:
            raise SourceError(f"{source} has no {part!r}{_near(part, holder)}") from None
    return holder


def _near(name: str, holder: Any) -> str:
    public = [known for known in dir(holder) if not known.startswith("_")]
    close = difflib.get_close_matches(name, public, n=3, cutoff=0.4)
    return f"; nearest: {', '.join(close)}" if close else f"; it has {', '.join(public[:5]) or 'no public names'}"


def _model_hint(spec: str) -> str:
    if spec.rstrip(":").endswith(".py"):
        return f"say which model of the file, as in {spec.rstrip(':')}:name"
    return MODELS


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"an {name}" if name[:1] in "aeiouAEIOU" else f"a {name}"


# Where an error came from

LIBRARIES = (
    *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(torch.__file__).parents[1]) + os.sep,
)
OWN = str(Path(__file__).parents[1]) + os.sep


def _place(error: BaseException) -> str | None:
    """The last file:line of an error that is neither in hookline nor in an installed library."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_shown(error.filename)}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(("<", OWN, *LIBRARIES))]
    return f"{_shown(theirs[-1].filename)}:{theirs[-1].lineno}" if theirs else None


def _shown(file: str) -> str:
    """A path relative to the current folder, if it is below it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


# Models of transformers


def _from_folder(folder: Path) -> Module:
    if not (folder / "config.json").is_file():
        raise SourceError(f"the folder {folder} holds no config.json, so it is not a transformers model: {MODELS}")
    strange = [each for each in folder.iterdir() if not each.is_dir() and kind_of_file(each)]
    if strange:
        raise SourceError(f"{strange[0]} is not a file but {kind_of_file(strange[0])}")
    try:
        import transformers
    except ImportError:
        raise SourceError(f"{folder} holds a transformers model, which needs: pip install transformers") from None
    try:
        with _no_progress_bars(transformers):
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            known = [kind for name in config.architectures or () if (kind := getattr(transformers, name, None))]
            model: Module = (known or [transformers.AutoModel])[0].from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise SourceError(f"cannot load the model in {folder}: {explain(error)}") from error
    return model


@contextmanager
def _no_progress_bars(transformers: Any) -> Iterator[None]:
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


# Inputs


def _default_inputs(model: Module, model_spec: str) -> Inputs:
    if model_spec == DEMO:
        return (demo.digits()[0][:DEMO_BATCH],), {}
    ready = getattr(model, "dummy_inputs", None)
    if isinstance(ready, Mapping) and getattr(model, "main_input_name", None) in ready:
        return (), dict(ready)
    raise SourceError(f"{model_spec} needs inputs: --inputs {DESCRIPTIONS}, a file, or module:name")


def _described(spec: str) -> Inputs:
    """The random tensors of a description, from a generator of their own."""
    generator = torch.Generator().manual_seed(0)
    args: list[Tensor] = []
    kwargs: dict[str, Tensor] = {}
    rest = spec.strip()
    while rest or not (args or kwargs):
        match = DESCRIPTION.match(rest)
        if not match:
            raise SourceError(f"cannot read {rest!r} in --inputs: give {INPUTS}")
        name, text = match["name"], match[0].strip(" ,;")
        if name in kwargs:
            raise SourceError(f"--inputs names {name} twice")
        tensor = _random(text, match, generator)
        if name:
            kwargs[name] = tensor
        else:
            args.append(tensor)
        rest = rest[match.end() :]
    return tuple(args), kwargs


def _random(text: str, match: re.Match[str], generator: torch.Generator) -> Tensor:
    dtype = DTYPES.get(match["dtype"])
    if dtype is None:
        raise SourceError(f"--inputs {text!r}: dtype must be one of {', '.join(DTYPES)}, not {match['dtype']!r}")
    shape = [_whole(text, size) for size in re.findall(r"\d+", match["shape"])]
    whole = not dtype.is_floating_point and dtype != torch.bool
    if match["high"] and not whole:
        raise SourceError(f"--inputs {text!r}: only integers can have '<', as in 'input_ids=int64[1,16]<30522'")

    high = _whole(text, match["high"] or "2")
    if whole and not 0 < high <= torch.iinfo(dtype).max:
        raise SourceError(f"--inputs {text!r}: the number after '<' must be from 1 to {torch.iinfo(dtype).max}")
    try:
        if dtype.is_floating_point:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        return torch.randint(high, shape, generator=generator).to(dtype)
    except (RuntimeError, MemoryError, TypeError, OverflowError) as error:
        raise SourceError(f"--inputs {text!r} cannot be made: {explain(error)}") from error


def _whole(text: str, digits: str) -> int:
    """A number in a description; SourceError for more digits than a size in PyTorch can have."""
    if len(digits) > DIGITS:
        raise SourceError(f"--inputs {shortened(text)}: a number of {len(digits)} digits is too large")
    return int(digits)


def _from_file(file: Path) -> Inputs:
    kind = kind_of_file(file)
    if kind:
        raise SourceError(f"cannot read the inputs file {file}: it is {kind}")
    try:
        value = READERS[file.suffix](file)
    except FileNotFoundError:
        raise SourceError(f"no inputs file {file}") from None
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(f"cannot read the inputs file {file}: {explain(error)}") from error
    return _as_inputs(value, str(file))


def _read_npz(file: Path) -> dict[str, Tensor]:
    try:
        import numpy
    except ImportError:
        raise SourceError(f"{file} needs: pip install numpy") from None
    with numpy.load(file, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _read_json(file: Path) -> dict[str, Any]:
    """Read lists as tensors; numbers, true, false, null and text stay as they are."""
    data = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise SourceError(f'the inputs file {file} must hold named tensors, as in {{"input_ids": [[1, 2, 3]]}}')
    return {
        name: _tensor(value, f"{name!r} in {file}") if isinstance(value, list) else value
        for name, value in data.items()
    }


def _tensor(value: list[Any], name: str) -> Tensor:
    try:
        tensor = torch.tensor(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise SourceError(f"{name} is not a tensor: {explain(error)}") from None
    return tensor.float() if tensor.is_floating_point() else tensor


def _read_torch(file: Path) -> Any:
    from pickle import UnpicklingError

    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise SourceError(
            f"{file} holds more than tensors, and nothing else is unpickled; save the tensors as .safetensors"
        ) from None


READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": load_file,
    ".npz": _read_npz,
    ".json": _read_json,
    ".pt": _read_torch,
    ".pth": _read_torch,
}


def _as_inputs(value: Any, source: str) -> Inputs:
    if isinstance(value, Tensor):
        return (value,), {}
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return (), dict(value)
    if isinstance(value, tuple | list):
        return tuple(value), {}
    raise SourceError(
        f"inputs must be a tensor, a tuple of arguments or a dict of named ones; {source} gives {_kind(value)}"
    )


def _device(model: Module) -> torch.device:
    """The device of the model's first parameter; the CPU without parameters, or if the weights are offloaded."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None or first.is_meta else first.device


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value

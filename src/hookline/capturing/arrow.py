"""A capture as a data set of the `datasets` library: Arrow arrays over the mapped files."""

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hookline.capturing.dataset import matching
from hookline.capturing.files import DataFile
from hookline.capturing.point import Point
from hookline.errors import ArgumentError
from hookline.messages import dtype_name

if TYPE_CHECKING:
    from hookline.capturing.captured import Capture

INSTALL = "datasets() needs the datasets library: pip install 'hookline[datasets]'"
LACKING = "which Arrow lacks; give dtype=torch.float32, which copies all values, or read them with capture.torch()"


def dataset_of(capture: "Capture", points: Sequence[Point], dtype: torch.dtype | None) -> Any:
    """The rows of some points, which match one to one, as a `datasets.Dataset`."""
    try:
        import datasets
        import pyarrow
    except ImportError as error:
        raise ImportError(INSTALL) from error
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise ArgumentError(f"dtype must be a torch.dtype, not {dtype!r}")
    matching(points)
    columns = {point.path or "(the model)": _chunks(point, dtype) for point in points}
    beside = points[0].beside()
    columns["example"] = _array(beside["example"])
    columns["id"] = _ids(capture, beside["example"])
    for name in ("position", "token"):
        if name in beside:
            columns[name] = _array(beside[name])
    table = pyarrow.table(columns)
    return datasets.Dataset(table, fingerprint=_fingerprint(capture, [*columns], dtype))


def _chunks(point: Point, dtype: torch.dtype | None) -> Any:
    """The values of a point, an array for each file."""
    import pyarrow

    known = _arrow_type(point, dtype or point.dtype or torch.float32)
    as_it_is = dtype in (None, point.dtype) and known != pyarrow.bool_()  # Arrow has eight of these in a byte
    read = _mapped if as_it_is else partial(_copied, dtype=dtype)
    arrays = [read(file, known) for file in point.files()]
    return pyarrow.chunked_array(arrays, type=_nested_type(known, point.shape))


def _arrow_type(point: Point, dtype: torch.dtype) -> Any:
    """What Arrow calls a dtype, where its values lie in memory as PyTorch's do."""
    import pyarrow

    try:
        return pyarrow.from_numpy_dtype(torch.zeros(0, dtype=dtype).numpy().dtype)
    except (TypeError, pyarrow.ArrowNotImplementedError):
        name = dtype_name(dtype)
        raise ArgumentError(f"{point.path!r} is {name}, {LACKING}") from None


def _mapped(file: DataFile, known: Any) -> Any:
    """The values of a file, mapped into memory for as long as the array lives."""
    import pyarrow

    if not file.rows:
        return _copied(file, known)
    with pyarrow.memory_map(str(file.path)) as mapped:
        values = mapped.read_buffer().slice(file.first_value)
    count = file.rows * torch.Size(file.shape).numel()
    return _nested(pyarrow.Array.from_buffers(known, count, [None, values]), file)


def _copied(file: DataFile, known: Any, dtype: torch.dtype | None = None) -> Any:
    """The values of a file in another dtype."""
    import pyarrow

    return _nested(pyarrow.array(file.mapped().to(dtype or file.dtype).reshape(-1).numpy(), type=known), file)


def _nested(flat: Any, file: DataFile) -> Any:
    """Values as rows: lists of a fixed size, one in another."""
    import pyarrow

    for size in reversed(file.shape):
        flat = pyarrow.FixedSizeListArray.from_arrays(flat, size)
    return flat


def _nested_type(known: Any, shape: Sequence[int]) -> Any:
    import pyarrow

    for size in reversed(shape):
        known = pyarrow.list_(known, size)
    return known


def _array(values: Tensor) -> Any:
    import pyarrow

    return pyarrow.array(values.numpy())


def _ids(capture: "Capture", numbers: Tensor) -> Any:
    """The id of each row's example."""
    import pyarrow

    ids = capture.ids_by_number()
    if all(number == id for number, id in ids.items()):
        return _array(numbers)
    kinds = {type(id) for id in ids.values()}
    known = [*ids.values()] if len(kinds) == 1 else [*map(str, ids.values())]
    places = torch.searchsorted(torch.tensor([*ids]), numbers)
    return pyarrow.array(known).take(_array(places))


def _fingerprint(capture: "Capture", columns: Sequence[str], dtype: torch.dtype | None) -> str:
    """What tells this data set from another: the names of the files hold digests of their content."""
    return hashlib.sha256(repr((sorted(capture.files), columns, dtype)).encode()).hexdigest()[:16]

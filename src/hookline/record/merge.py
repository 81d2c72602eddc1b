"""The runs of all ranks as one run: calls matched by path and index, tensors reduced to the whole."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from hookline.errors import RecordError
from hookline.model.sharded import PER_RANK, Part
from hookline.model.tensors import mirror
from hookline.record.record import CallRecord, Run, Slot, TensorInfo, infos
from hookline.record.statistics import Stats, alike, whole

SAME = ("path", "index", "type", "began", "seconds", "thread", "training", "recompute")


def merged(runs: Sequence[Run]) -> Run:
    """Merge the runs of all ranks into one.

    Calls are in the order of rank 0. Calls that it did not make come after its own, in the order of the first rank that
    made them.
    """
    if not runs:
        raise RecordError("there are no runs to merge")
    run = Run(
        model=runs[0].model,
        modules={path: kind for own in reversed(runs) for path, kind in own.modules.items()},
        aliases={alias: path for own in reversed(runs) for alias, path in own.aliases.items()},
        settings=runs[0].settings,
        world_size=len(runs),
    )
    run.modules = {path: run.modules[path] for own in runs for path in own.modules}
    run.ranks = tuple(runs)
    tables = [{(call.path, call.index): call for call in own} for own in runs]
    made: dict[tuple[str, int], CallRecord] = {}
    for key in dict.fromkeys(key for table in tables for key in table):
        call = made[key] = _call(tuple(table.get(key) for table in tables))
        call.number = len(run.calls)
        run.calls.append(call)
    for call in run.calls:
        above = next(own for own in call.ranks if own is not None).parent
        call.parent = None if above is None else made[above.path, above.index]
    return run


def _call(ranks: tuple[CallRecord | None, ...]) -> CallRecord:
    """One call from the records of each rank."""
    first = next(own for own in ranks if own is not None)
    call = CallRecord()
    for name in SAME:
        setattr(call, name, getattr(first, name))
    call.error = next((own.error for own in ranks if own is not None and own.error), None)
    call.ranks = ranks
    for name in ("args", "kwargs", "output"):
        setattr(call, name, _values([None if own is None else getattr(own, name) for own in ranks]))
    return call


def _values(ranks: Sequence[Any]) -> Any:
    """A value with the nesting of the first rank that has tensors in it, and each tensor merged over all ranks."""
    tables = [dict(infos(own)) for own in ranks]
    place = next((place for place, table in enumerate(tables) if table), next(iter(_there(ranks)), 0))
    keys = iter(tables[place])

    def together(_: TensorInfo) -> TensorInfo:
        own = next(keys)
        return _info([table.get(own) for table in tables])

    return mirror(ranks[place], together, kind=TensorInfo)


def _there(ranks: Sequence[Any]) -> Iterator[int]:
    return (place for place, own in enumerate(ranks) if own is not None)


def _info(ranks: Sequence[TensorInfo | None]) -> TensorInfo:
    """One tensor from the records of each rank."""
    known = [info for info in ranks if info is not None]
    first = known[0]
    info = TensorInfo()
    info.shape = _shape([own.shape for own in known])
    info.dtype, info.device, info.requires_grad = first.dtype, first.device, first.requires_grad
    info._ranks = tuple(ranks)

    groups = _groups(ranks)
    figures = [_stats_of(group) for group in groups]
    found = [stats for stats in figures if stats is not None]
    complete = len(found) == len(groups)
    once = len(groups) == 1 or not found or (complete and alike(found))
    info._stats = found[0] if complete and alike(found) else whole(found) if complete else None
    info._part = _part(groups, once=once)
    if once and first.part is None and isinstance(first.value, Tensor):
        info._value = first.value
    grads = [None if own is None else own.grad for own in ranks]
    if any(grad is not None for grad in grads):
        info._grad = Slot(_info(grads))
    return info


def _shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The common shape, with -1 where the sizes differ."""
    if len({len(shape) for shape in shapes}) > 1:
        return shapes[0]
    return tuple(sizes[0] if len({*sizes}) == 1 else -1 for sizes in zip(*shapes, strict=True))


Group = list[TensorInfo]


def _groups(ranks: Sequence[TensorInfo | None]) -> list[Group]:
    """The records grouped by tensor: ranks of one mesh hold parts of one tensor, a plain tensor is its rank's own."""
    groups: dict[Any, Group] = {}
    for rank, info in enumerate(ranks):
        if info is not None:
            groups.setdefault(rank if info.part is None else info.part.ranks, []).append(info)
    return [*groups.values()]


def _stats_of(group: Group) -> Stats | None:
    """The statistics of one tensor from those of its parts; None if a part is missing or the tensor is Partial."""
    part = group[0].part
    if part is None:
        return group[0].measured()
    if len(group) < len(part.ranks) or any(name.startswith("Partial") for name in part.placement):
        return None
    copies = [axis for axis, name in enumerate(part.placement) if name == "Replicate()"]
    parts = [info.measured() for info in group if info.part is not None and _is_first(info.part, copies)]
    known = [stats for stats in parts if stats is not None]
    return whole(known) if len(known) == len(parts) else None


def _is_first(part: Part, copies: Sequence[int]) -> bool:
    """Whether a process is the first of those that hold equal parts."""
    return part.place is not None and not any(part.place[axis] for axis in copies)


def _part(groups: Sequence[Group], *, once: bool) -> Part | None:
    """The placement of the whole; None if it is one plain tensor."""
    first = groups[0][0]
    part = None if first.part is None else replace(first.part, place=None)
    if once:
        return part
    if part is None:
        return Part(tuple(first.shape), (PER_RANK,), (len(groups),), tuple(range(len(groups))), None)
    ranks = tuple(rank for group in groups for rank in (group[0].part.ranks if group[0].part else ()))
    return Part(part.shape, (PER_RANK, *part.placement), (len(groups), *part.mesh), ranks, None)

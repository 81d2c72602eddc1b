"""Gather the runs of all ranks on rank 0, sent as plain data."""

from typing import Any

from torch import distributed

from hookline.errors import HooklineError, RecordError
from hookline.model.sharded import rank_and_world
from hookline.record.merge import merged
from hookline.record.record import Run
from hookline.record.run_document import from_document, to_document
from hookline.store.folder import pack, unpack


def gathered(run: Run) -> Run | None:
    """The merged run of all ranks on rank 0, None on the others. Every rank must call it."""
    rank, world_size = rank_and_world()
    if rank is None or world_size is None:
        raise RecordError(
            "run.gather() merges the runs of all ranks, but torch.distributed is not initialized in this process; "
            "start it with torchrun and call torch.distributed.init_process_group() first"
        )
    packed, failed = _packed(run)
    parcels: list[Any] | None = [None] * world_size if rank == 0 else None
    distributed.gather_object(packed, parcels)
    if failed is not None:
        raise failed
    if parcels is None:
        return None
    missing = [f"rank {other}" for other, parcel in enumerate(parcels) if parcel is None]
    if missing:
        raise RecordError(f"{', '.join(missing)} could not send the run; the error on that rank says why")
    return merged([from_document(*unpack(*parcel)) for parcel in parcels])


def _packed(run: Run) -> tuple[tuple[str, bytes] | None, HooklineError | None]:
    """The packed run, or the error instead. The error is raised later: the other ranks wait for this one to send."""
    try:
        return pack(*to_document(run)), None
    except HooklineError as error:
        return None, error

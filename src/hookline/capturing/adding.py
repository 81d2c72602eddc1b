"""Runs batches of a data set and adds up what the modules give, in one process or in several."""

from collections.abc import Callable, Mapping

import torch

from hookline.capturing.asked import Asked
from hookline.capturing.batches import Taken, example_with
from hookline.capturing.block import Block
from hookline.capturing.cover import Cover, Part
from hookline.capturing.host import DeviceCopies
from hookline.capturing.total import CPU, Measures, Total
from hookline.capturing.totals import DATA, Totals, identity, merged
from hookline.capturing.totals_document import decode, to_document
from hookline.errors import CaptureError
from hookline.store.folder import pack, unpack

LARGEST = 2.0**450  # squares of what is larger could not be added up in float64
KEPT = 2**14  # ids that are held until it is looked which ones are needed
PIECE = 2**28  # bytes that are sent at once
SMALL = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)


class Adding:
    """What a process has added up so far, of a part of the batches of a data set."""

    def __init__(self, asked: Asked, measures: Measures, part: Part) -> None:
        self.asked, self.measures, self.part = asked, measures, part
        self.signature = asked.signature()
        self.batches = asked.batches(DeviceCopies(), not_finite)
        self.points: dict[str, Total] = {}
        self.skipped: dict[int, str] = {}
        self.ids: dict[int, str | int] = {}
        self.most_ids = KEPT

    def run(self, tell: Callable[[int], None]) -> Totals:
        """Run the batches; `tell` receives after each how many examples it had."""
        examples, (number, step) = self.asked.examples, self.part
        size = examples.batch
        with self.batches.gather.attach():
            while examples.count is None or number * size < examples.count:
                start = number * size
                stop = start + size if examples.count is None else min(start + size, examples.count)
                for taken in self.batches.run(start, stop):
                    self._add(taken)
                    tell(len(taken.ids))
                number += step
        return self._found()

    def _add(self, taken: Taken) -> None:
        """Add the rows of a batch."""
        self.skipped |= taken.skipped
        if self.measures.top and self.asked.id is not None:
            self._keep_ids(taken)
        start = taken.start
        for found in taken.found:
            if isinstance(found, int):
                start += found
                continue
            if self.points and self.points.keys() != found.keys():
                raise CaptureError(
                    f"one batch gives {[*self.points]}, another {[*found]}: every batch must give the same"
                )
            for path, block in found.items():
                self._point(path, block).add(block, start)
            start += len(next(iter(found.values())).counts)

    def _point(self, path: str, block: Block) -> Total:
        found = self.points.get(path)
        if found is None:
            own: Mapping[str, str] = self.signature["points"]
            kind = own.get(path) or own.get(path.rsplit("/", 1)[0], "")
            device = CPU if block.values.device.type == "mps" else block.values.device  # which has no float64
            found = self.points[path] = Total(path, kind, block.kind, self.measures, device)
        return found

    def _keep_ids(self, taken: Taken) -> None:
        """Keep the ids of examples that may be among the largest."""
        if len(self.ids) > self.most_ids:
            named = set().union(*(point.top.numbers for point in self.points.values()))
            self.ids = {number: self.ids[number] for number in named}
            self.most_ids = max(KEPT, 2 * len(self.ids))
        self.ids |= dict(enumerate(taken.ids, taken.start))

    def _found(self) -> Totals:
        for point in self.points.values():
            point.settle()
        count = self.asked.examples.count
        assert count is not None
        data = {name: self.signature[name] for name in DATA if name in self.signature}
        inputs = data.pop("inputs")
        data.pop("examples")
        cover = Cover(data, inputs, count, self.asked.examples.batch, (self.part,), self.skipped)
        signature = {name: value for name, value in self.signature.items() if name not in (*DATA, "unit", "dtype")}
        model = type(self.asked.model).__name__
        return Totals(model, signature, self.measures, [cover], self.points.values(), self.ids)


def not_finite(found: Mapping[str, Block]) -> tuple[int, str] | None:
    """The place in the batch of the first example that cannot be added up, and why."""
    for point, block in found.items():
        values = block.values.float() if block.values.dtype in SMALL else block.values
        if not values.is_floating_point() or not values.numel():
            continue
        low, high = (float(each) for each in values.aminmax())
        if low > -LARGEST and high < LARGEST:  # which NaN is not
            continue
        rows = values.reshape(len(values), -1)
        bad = ~(rows.abs() < LARGEST)
        value = float(rows[bad][0])
        what = f"{value:.4g}, whose square float64 cannot add up," if torch.isfinite(rows[bad][0]) else _named(value)
        return example_with(block, bad.any(1)), f"has {what} at {point!r}"
    return None


def _named(value: float) -> str:
    return "NaN" if value != value else f"an infinite value ({value})"


def merged_over_ranks(own: Totals, rank: int, world: int) -> Totals:
    """The totals of all ranks, on each of them. Every rank must call it.

    Raises CaptureError where a rank has another data set, which it does not share with the others.
    """
    found: Totals | None = None
    for source in range(world):
        text, tensors = pack(*to_document(own)) if source == rank else ("", b"")
        part = decode(*unpack(broadcast(text.encode(), source).decode(), broadcast(tensors, source)))
        if found is not None and [*map(identity, part.covers)] != [*map(identity, found.covers)]:
            raise CaptureError(
                f"rank {source} has other data than rank 0; give every rank the whole data set, without a "
                "DistributedSampler: hookline.totals shares out the batches"
            )
        found = part if found is None else merged(found, part)
    assert found is not None
    return found


def broadcast(content: bytes, source: int) -> bytes:
    """Bytes of one rank, on all of them."""
    send = torch.distributed.broadcast_object_list
    size = [len(content)]
    send(size, src=source)
    found = []
    for start in range(0, size[0], PIECE):
        piece = [content[start : start + PIECE]]
        send(piece, src=source)
        found.append(piece[0])
    return b"".join(found)

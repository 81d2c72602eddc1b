"""What the programs of this folder share: a small model, ways to distribute it, and one training run."""

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import hookline

STEPS = 3
BATCH = 6


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(8, 10), nn.GELU(), nn.Linear(10, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.act(self.up(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def sharded(mesh: DeviceMesh, **options: Any) -> Callable[[nn.Module], nn.Module]:
    def wrap(model: Any) -> nn.Module:
        for block in model.blocks:
            fully_shard(block, mesh=mesh, **options)
        fully_shard(model, mesh=mesh, **options)
        return model

    return wrap


def tensor_parallel(mesh: DeviceMesh) -> Callable[[nn.Module], nn.Module]:
    plan: dict[str, Any] = {"blocks.*.up": ColwiseParallel(use_local_output=False), "blocks.*.down": RowwiseParallel()}
    return lambda model: parallelize_module(model, mesh, plan)


def wrappers(mesh: DeviceMesh) -> dict[str, Callable[[nn.Module], nn.Module]]:
    """Every way to distribute a model, by the name that the tests know it by."""
    bfloat16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return {
        "ddp": DistributedDataParallel,
        "fsdp": sharded(mesh, reshard_after_forward=True),
        "fsdp whole after forward": sharded(mesh, reshard_after_forward=False),
        "fsdp bfloat16": sharded(mesh, mp_policy=bfloat16),
        "tensor parallel": tensor_parallel(mesh),
    }


def same_batch(name: str) -> bool:
    """Whether all ranks are given the same batch."""
    return name in ("tensor parallel", "alone")


def train(
    name: str, wrap: Callable[[nn.Module], nn.Module], *, watch: str = "", rank: int, tool: Any = None, **options: Any
) -> tuple[list[str], hookline.Run | None]:
    """The losses of a few steps, to the bit, and the run; `watch` says whether one is put on "before" or "after" the
    model is wrapped; `tool` is another to put on after."""
    torch.manual_seed(0)
    bare = Net()
    around: Any = hookline.watch(bare, **options) if watch == "before" else nullcontext()
    with around as run:
        model = wrap(bare)
        inside: Any = hookline.watch(model, **options) if watch == "after" else nullcontext()
        inside = tool(model) if tool else inside
        with inside as later:
            return steps(model, name, rank), run or later


def steps(model: nn.Module, name: str, rank: int) -> list[str]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for step in range(STEPS):
        loss = model(batch(step, 0 if same_batch(name) else rank)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item().hex())
    return losses


def batch(step: int, rank: int) -> torch.Tensor:
    return torch.randn(BATCH, 8, generator=torch.Generator().manual_seed(10 * step + rank))


def told(run: hookline.Run) -> list[Any]:
    """The calls of a run as plain data."""
    return [
        {
            "path": call.path,
            "index": call.index,
            "parent": None if call.parent is None else call.parent.path,
            "shape": [*call.output.shape],
            "local_shape": [*call.output.local_shape],
            "placement": call.output.placement,
            "norm": call.output.stats and call.output.stats.norm,
            "grad": call.output.grad is not None,
            "grad_placement": call.output.grad and call.output.grad.placement,
            "grad_norm": call.output.grad and call.output.grad.stats and call.output.grad.stats.norm,
            "error": call.error,
        }
        for call in run
    ]


def figures(stats: Any) -> Any:
    """Statistics as plain data."""
    if stats is None:
        return None
    return {name: getattr(stats, name) for name in (*stats.__slots__, "absmax")}


def write(facts: dict[str, Any]) -> None:
    """What a rank has to tell, for the tests to read."""
    folder = Path(os.environ["FACTS"])
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(facts))

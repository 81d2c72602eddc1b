"""Run by torchrun in two processes: trains the model in every way, watched and not, and writes down what happened."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from world import Block, Net, batch, figures, told, train, wrappers, write

import hookline
from hookline.model.sharded import local_part


def trainings(mesh: Any, rank: int) -> dict[str, Any]:
    """Losses and calls, with a watch before, after, and none."""
    facts: dict[str, Any] = {}
    for name, wrap in wrappers(mesh).items():
        facts[name] = {"bare": train(name, wrap, rank=rank)[0]}
        for when in ("before", "after"):
            losses, run = train(name, wrap, watch=when, rank=rank, grads=True)
            assert run is not None
            facts[name][when] = {"losses": losses, "calls": told(run), "modules": run.modules, "run": repr(run)}
        losses, run = train(name, wrap, watch="after", rank=rank, grads="input", keep="shape")
        assert run is not None
        facts[name]["inputs"] = {"grads": [bool(call.grad_input[0]) for call in run if call.path == "blocks.1"]}
    return facts


def guards(mesh: Any, rank: int) -> dict[str, Any]:
    """Losses under a guard, and what one says of NaN in the part that is on one rank."""
    facts: dict[str, Any] = {}
    for name in ("fsdp", "tensor parallel"):
        facts[name] = train(name, wrappers(mesh)[name], tool=hookline.guard, rank=rank)[0]
    model = wrappers(mesh)["tensor parallel"](Net())
    with torch.no_grad():
        part = local_part(model.blocks[1].up.bias)
        part[0] = float("nan") if rank == 1 else 0.0
    found: list[Any] = []
    with hookline.guard(model, then=found.append):
        model(batch(0, 0))
    facts["found"] = [found[0].path, found[0].phase]
    return facts


def tools(mesh: Any) -> dict[str, Any]:
    """What the other tools say of sound models."""
    facts: dict[str, Any] = {}
    for name in ("fsdp", "tensor parallel"):
        model = wrappers(mesh)[name](Net())
        x = batch(0, 0)
        seen: list[Any] = []
        with hookline.on(model, "blocks.0.act", backward=lambda call, seen=seen: seen.append(call.grad_input[0])):
            model(x).sum().backward()
        facts[name] = {
            "check": [finding.rule for finding in hookline.check(model, x)],
            "profile": len(hookline.profile(model, x, repeat=1)),
            "diff": repr(hookline.diff(model, model, x)),
            "step": [type(gradient).__name__ for gradient in seen],
        }
    return facts


def first_fsdp(rank: int) -> dict[str, Any]:
    """The older FullyShardedDataParallel."""
    policy = ModuleWrapPolicy({Block})

    def wrap(model: torch.nn.Module) -> torch.nn.Module:
        return FullyShardedDataParallel(model, auto_wrap_policy=policy, device_id=torch.device("cpu"))

    losses, run = train("fsdp 1", wrap, watch="after", rank=rank, grads=True)
    assert run is not None
    return {"bare": train("fsdp 1", wrap, rank=rank)[0], "losses": losses, "paths": sorted({call.path for call in run})}


def gathers(mesh: Any, rank: int) -> dict[str, Any]:
    """What gathered runs hold, beside the figures of the same model in one process."""
    facts: dict[str, Any] = {}
    for name in ("tensor parallel", "ddp"):
        _, run = train(name, wrappers(mesh)[name], watch="after", rank=rank, grads=True, keep="histogram")
        assert run is not None
        gathered = run.gather()
        facts[name] = {"is": gathered is not None, "rank": run.rank, "world_size": run.world_size}
        if gathered is not None:
            facts[name] |= seen(gathered)
            folder = Path(os.environ["FACTS"]) / name
            gathered.save(folder)
            facts[name]["loaded"] = seen(hookline.load(folder))
    return facts


def seen(run: hookline.Run) -> dict[str, Any]:
    first = run["blocks.0.up"]
    return {
        "calls": [
            {
                **call,
                "stats": figures(own.output.stats),
                "grad_stats": figures(own.output.grad and own.output.grad.stats),
            }
            for call, own in zip(told(run), run, strict=True)
        ],
        "ranks": [own is not None and own.output.stats.mean for own in first.ranks],
        "infos": [info is not None and info.stats.count for info in first.output.ranks],
        "run": [run.rank, run.world_size, [own.rank for own in run.ranks]],
        "text": repr(run),
    }


def alone() -> list[Any]:
    """The same training of the whole model in one process."""
    _, run = train("alone", lambda model: model, watch="after", rank=0, grads=True, keep="histogram")
    assert run is not None
    return [
        {"path": call.path, "stats": figures(call.output.stats), "grad_stats": figures(call.output.grad.stats)}
        for call in run
    ]


def placed(mesh: Any, rank: int) -> dict[str, Any]:
    """A tensor of five rows that lies in every way, passed through a watched Identity."""
    whole = torch.arange(-4.0, 11.0).reshape(5, 3)
    whole[4, 2] = float("inf")
    ways: dict[str, Any] = {"rows": Shard(0), "columns": Shard(1), "copies": Replicate()}
    tensors = {name: distribute_tensor(whole, mesh, [way]) for name, way in ways.items()}
    tensors["summands"] = DTensor.from_local(whole, mesh, [Partial()], run_check=False)
    facts: dict[str, Any] = {"whole": figures(through_identity(whole).calls[0].output.stats)}
    for name, tensor in tensors.items():
        run = through_identity(tensor, keep="copy")
        info = run.calls[0].output
        run.save(Path(os.environ["FACTS"]) / f"{name} {rank}")
        loaded = hookline.load(Path(os.environ["FACTS"]) / f"{name} {rank}").calls[0].output
        gathered = run.gather()
        facts[name] = {
            "shape": [*info.shape],
            "local_shape": [*info.local_shape],
            "placement": info.placement,
            "local": repr(figures(info.measured()))
            == repr(figures(through_identity(local_part(tensor), keep="copy").calls[0].output.measured())),
            "stored": [[*loaded.value.shape], [*loaded.local_shape], loaded.placement],
            "gathered": None if gathered is None else figures(gathered.calls[0].output.stats),
            "text": repr(info),
        }
    return facts


def through_identity(tensor: torch.Tensor, **options: Any) -> hookline.Run:
    model = torch.nn.Identity()
    with hookline.watch(model, **options) as run:
        model(tensor)
    return run


def odd(rank: int) -> dict[str, Any]:
    """Ranks that do not do the same."""
    model = Net()
    with hookline.watch(model) as run:
        for _ in range(1 + rank):
            model(batch(0, rank))
    gathered = run.gather()
    facts: dict[str, Any] = {}
    if gathered is not None:
        facts["calls"] = [[call.path, call.index, [own is not None for own in call.ranks]] for call in gathered]
        facts["parents"] = [None if call.parent is None else [call.parent.path, call.parent.index] for call in gathered]
    with hookline.watch(model, keep=lambda tensor: object()) as unsaved:
        if rank == 1:
            model(batch(0, rank))
    try:
        unsaved.gather()
    except hookline.HooklineError as error:
        facts["refused"] = [type(error).__name__, str(error)]
    return facts


def main() -> None:
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    mesh = init_device_mesh("cpu", (2,))
    facts = {
        "trainings": trainings(mesh, rank),
        "guards": guards(mesh, rank),
        "tools": tools(mesh),
        "first fsdp": first_fsdp(rank),
        "gathers": gathers(mesh, rank),
        "alone": alone(),
        "placed": placed(mesh, rank),
        "odd": odd(rank),
    }
    write(facts)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()

"""What each process of `torchrun` does: train a little under a monitor, and the first one saves what it saw.

alone: one process over all of the batch; ddp, fsdp: the processes share it.
"""

import sys

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import hookline

how, folder = sys.argv[1:]
torch.set_num_threads(1)
torch.manual_seed(0)
model = plain = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
data = torch.randn(6, 8, 4, generator=torch.Generator().manual_seed(1))
rank, world = 0, 1
if how != "alone":
    torch.distributed.init_process_group("gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
if how == "fsdp":
    mesh = init_device_mesh("cpu", (world,))
    for layer in (plain[0], plain[2]):
        fully_shard(layer, mesh=mesh)
    fully_shard(plain, mesh=mesh)
if how == "ddp":
    model = DistributedDataParallel(plain)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
reduced = []
if how != "alone":
    all_reduce = torch.distributed.all_reduce

    def counted(*args, **kwargs):
        reduced.append(args[0].shape)
        return all_reduce(*args, **kwargs)

    torch.distributed.all_reduce = counted
with hookline.monitor(model, optimizer, figures=("rms", "norm", "absmax", "zeros"), to=f"{folder}/run") as monitor:
    for batch in data:
        optimizer.zero_grad()
        model(batch[rank::world]).square().mean().backward()
        optimizer.step()
assert how == "alone" or len(reduced) == len(data), reduced  # one a sampled step
monitor.save(f"{folder}/rank{rank}")
if how != "alone":
    torch.distributed.destroy_process_group()

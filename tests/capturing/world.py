"""What each process of `torchrun` does: capture to one folder, plainly or with a model that is spread over them."""

import sys

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import hookline

how, folder = sys.argv[1:]
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).eval()
data = torch.randn(41, 4)
if how != "alone":
    torch.distributed.init_process_group("gloo")
if how == "sharded":
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    fully_shard(model, mesh=mesh)
if how in ("parts", "tensor"):
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    first = ColwiseParallel(use_local_output=how == "parts")
    parallelize_module(model, mesh, {"0": first, "2": RowwiseParallel()})
if how == "ddp":
    model = DistributedDataParallel(model)
where = ["0", "1", "2"] if how == "tensor" else ["0", "1"]
acts = hookline.capture(model, data, where, to=folder, batch=2, unit=4, progress=False)
assert acts.finished, acts.missing
if how != "alone":
    torch.distributed.destroy_process_group()

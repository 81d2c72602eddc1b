"""What each process of `torchrun` does: totals of one data set, saved by each rank to a folder of its own."""

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
data[17] = torch.nan
rank = 0
if how != "alone":
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
if how == "sharded":
    fully_shard(model, mesh=init_device_mesh("cpu", (torch.distributed.get_world_size(),)))
if how == "parts":
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
if how == "ddp":
    model = DistributedDataParallel(model)
if how == "other data":
    data = data[rank:]
found = hookline.totals(
    model,
    data,
    ["0", "1"],
    covariance=True,
    quantiles=True,
    top=3,
    batch=2,
    id=lambda example: f"{float(example[0]):.6f}",
    errors="skip",
    progress=False,
)
assert found.finished, found.missing
found.save(f"{folder}/{rank}")
if how != "alone":
    torch.distributed.destroy_process_group()

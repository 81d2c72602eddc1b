"""Find the bug in a port: other names, other code, and one thing wrong. Nobody says which module is which."""

import torch
from torch import Tensor, nn

import hookline

torch.manual_seed(0)
reference = nn.TransformerEncoder(
    nn.TransformerEncoderLayer(32, 4, dim_feedforward=64, dropout=0.0, activation="gelu", batch_first=True), 2
)


class Block(nn.Module):
    """The port of one layer, made of the reference's weights."""

    def __init__(self, layer: nn.TransformerEncoderLayer) -> None:
        super().__init__()
        self.attn, self.ln_1, self.ln_2 = layer.self_attn, layer.norm1, layer.norm2
        self.up, self.down = layer.linear1, layer.linear2
        self.ln_2 = nn.LayerNorm(32, eps=1e-2)  # the bug
        self.ln_2.load_state_dict(layer.norm2.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """What the reference's layer gives, by its own code."""
        x = self.ln_1(x + self.attn(x, x, x, need_weights=False)[0])
        return self.ln_2(x + self.down(nn.functional.gelu(self.up(x))))


port = nn.Sequential(*map(Block, reference.layers))
diff = hookline.diff(reference, port, torch.randn(2, 5, 32))
print(diff)
print("\nfirst:", diff.first.path, "| culprit:", diff.culprit.path, "| why:", diff.culprit.why)

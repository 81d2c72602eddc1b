"""A small digit-reading network that holds, in few lines, the shapes of module that hooks find hard."""

from torch import Tensor, nn, zeros
from torch.nn import functional

CHANNELS = 32
HEADS = 4
CLASSES = 10
POSITIONS = 16


class Stem(nn.Module):
    """The first layer: turns one grey channel into `CHANNELS` feature channels."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, CHANNELS, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        """Features [batch, CHANNELS, 8, 8], none negative, of images [batch, 1, 8, 8]."""
        features: Tensor = self.activation(self.norm(self.convolution(images)))
        return features


class ResidualBlock(nn.Module):
    """A convolution whose result is added to its own input."""

    def __init__(self) -> None:
        super().__init__()
        # Group norm, because the running statistics of a batch norm would mix the two calls of a shared block.
        self.norm = nn.GroupNorm(1, CHANNELS)
        self.activation = nn.ReLU(inplace=True)
        self.convolution = nn.Conv2d(CHANNELS, CHANNELS, kernel_size=3, padding=1)
        self.dropout = nn.Dropout(0.1)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape, [batch, CHANNELS, height, width]; the input is left as it was."""
        branch: Tensor = self.convolution(self.activation(self.norm(features)))
        dropped: Tensor = self.dropout(branch)
        return features + dropped


class SelfAttention(nn.Module):
    """Multi-head self-attention, in which each position of an image looks at all the others.

    Source: Vaswani et al., "Attention Is All You Need", 2017, section 3.2.
    """

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(CHANNELS, CHANNELS)
        self.key = nn.Linear(CHANNELS, CHANNELS)
        self.value = nn.Linear(CHANNELS, CHANNELS)
        self.output = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of the same shape, [batch, positions, CHANNELS]."""
        attended = functional.scaled_dot_product_attention(
            split_heads(self.query(tokens)),
            split_heads(self.key(tokens)),
            split_heads(self.value(tokens)),
        )
        mixed: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return mixed


class DigitReader(nn.Module):
    """A network that reads one handwritten digit from an 8 by 8 grey image.

    Its `block` is one module called twice in each forward, so both calls share the same weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.block = ResidualBlock()
        self.pool = nn.MaxPool2d(2)
        self.position = nn.Parameter(zeros(POSITIONS, CHANNELS))
        self.norm = nn.LayerNorm(CHANNELS)
        self.attention = SelfAttention()
        self.head = nn.Linear(POSITIONS * CHANNELS, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, 10] of float32 images [batch, 1, 8, 8] in 0..1."""
        features = self.block(self.block(self.stem(images)))
        tokens = self.pool(features).flatten(2).transpose(1, 2) + self.position

        attended = tokens + self.attention(self.norm(tokens))
        logits: Tensor = self.head(attended.flatten(1))
        return logits


def split_heads(tokens: Tensor) -> Tensor:
    """The same numbers as [batch, HEADS, positions, CHANNELS / HEADS], from [batch, positions, CHANNELS]."""
    return tokens.reshape(*tokens.shape[:2], HEADS, -1).transpose(1, 2)

"""Small modules and models on disk that several tests use."""

from pathlib import Path
from typing import Any

from torch import nn


class Gives(nn.Module):
    """A module that gives what a function makes of its arguments."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.make(*args, **kwargs)


def save_tiny_bert(folder: Path) -> Path:
    """Write a tiny BERT for classification to a folder, as transformers does; gives the folder."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder

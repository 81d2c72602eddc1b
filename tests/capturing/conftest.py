"""Captures that the tests read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hookline


class Tagger(nn.Module):
    """Embeds tokens and gives each position a score; examples have 1 to 5 tokens, the rest is padding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(50, 6)
        self.score = nn.Linear(6, 3)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.score(self.embed(input_ids))


def tokens_of(number: int) -> list[int]:
    return [(number * 7 + place) % 50 for place in range(1 + number % 5)]


def padded(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    ids, mask = torch.zeros(len(batch["tokens"]), 5, dtype=torch.int64), torch.zeros(len(batch["tokens"]), 5)
    for place, tokens in enumerate(batch["tokens"]):
        ids[place, : len(tokens)], mask[place, : len(tokens)] = torch.tensor(tokens), 1
    return {"input_ids": ids, "attention_mask": mask}


Make = Callable[..., hookline.Capture]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Captures `count` examples of the tagger, in units of 4; `rows=None` takes each example whole."""

    def made(count: int = 22, *, name: str = "acts", model: nn.Module | None = None, **asked: Any) -> hookline.Capture:
        data = [{"name": f"e{number}", "tokens": tokens_of(number)} for number in range(count)]
        asked = {"rows": hookline.rows(mask="attention_mask"), "batch": 2, "unit": 4, **asked}
        where = asked.pop("where", ["embed", "score"])
        return hookline.capture(
            (model or Tagger()).eval(), data, where, to=tmp_path / name, call=padded, progress=False, **asked
        )

    return made

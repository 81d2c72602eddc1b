"""Tests that the shipped model reads digits, and holds the shapes of module that other tests count on."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from hookline import demo

LIMIT = 400_000


def count_calls(reader: demo.DigitReader) -> dict[str, int]:
    """How often each module below `reader` is called in one forward, by its name."""
    names = {module: name for name, module in reader.named_modules() if name}
    calls = dict.fromkeys(names.values(), 0)

    def count(module: nn.Module, arguments: object, result: object) -> None:
        calls[names[module]] += 1

    for module in names:
        module.register_forward_hook(count)
    reader(torch.zeros(1, 1, 8, 8))
    return calls


def test_the_model_reads_at_least_97_of_100_held_out_images() -> None:
    images, labels = demo.digits()

    with torch.no_grad():
        guesses = demo.model()(images).argmax(dim=1)

    assert (guesses == labels).float().mean().item() >= 0.97


def test_the_two_shipped_files_stay_under_400_kilobytes_together() -> None:
    folder = Path(demo.__file__).parent

    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) < LIMIT


def test_there_are_at_least_256_held_out_images_with_a_label_each() -> None:
    images, labels = demo.digits()

    assert len(images) == len(labels) >= 256


def test_the_images_are_float32_in_0_to_1_on_one_grey_channel_of_8_by_8() -> None:
    images, _ = demo.digits()

    assert images.dtype == torch.float32
    assert images.shape[1:] == (1, 8, 8)
    assert (images.min().item(), images.max().item()) == (0.0, 1.0)


def test_the_labels_are_int64_and_show_every_digit() -> None:
    _, labels = demo.digits()

    assert labels.dtype == torch.int64
    assert set(labels.tolist()) == set(range(10))


def test_the_model_comes_in_eval_mode() -> None:
    assert not any(module.training for module in demo.model().modules())


def test_each_call_of_model_builds_a_new_one_with_its_own_weights() -> None:
    first, second = demo.model(), demo.model()

    with torch.no_grad():
        first.head.weight.zero_()

    assert second.head.weight.abs().sum() > 0


def test_building_the_model_leaves_the_random_generator_where_it_was() -> None:
    before = torch.get_rng_state()

    demo.model()

    assert torch.equal(torch.get_rng_state(), before)


def test_the_block_is_called_twice_in_one_forward() -> None:
    assert count_calls(demo.model())["block"] == 2


def test_every_submodule_is_called_in_one_forward() -> None:
    assert min(count_calls(demo.model()).values()) >= 1


def test_the_model_has_a_convolution() -> None:
    assert any(isinstance(module, nn.Conv2d) for module in demo.model().modules())


def test_the_model_has_a_relu_that_works_in_place() -> None:
    assert any(isinstance(module, nn.ReLU) and module.inplace for module in demo.model().modules())


def test_a_block_with_a_silent_branch_gives_its_input_back() -> None:
    block = demo.model().block
    features = torch.randn(2, 32, 8, 8)

    with torch.no_grad():
        for parameter in block.convolution.parameters():
            parameter.zero_()

    assert torch.equal(block(features), features)


def test_a_block_leaves_its_input_as_it_was() -> None:
    features = torch.randn(2, 32, 8, 8)
    before = features.clone()

    demo.model().block(features)

    assert torch.equal(features, before)


def test_the_attention_calls_scaled_dot_product_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    real = functional.scaled_dot_product_attention
    queries = []

    def spy(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        queries.append(query.shape)
        return real(query, key, value)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", spy)
    demo.model()(torch.zeros(2, 1, 8, 8))

    assert queries == [(2, 4, 16, 8)]

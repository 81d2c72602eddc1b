"""A trained model and its held-out images, shipped so that every example runs offline in a second."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from hookline.demo.network import DigitReader

__all__ = ["DigitReader", "digits", "model"]

WEIGHTS = Path(__file__).with_name("weights.safetensors")
DIGITS = Path(__file__).with_name("digits.safetensors")

# The data set stores each pixel as a whole number from 0 to 16.
BRIGHTEST = 16


def model() -> DigitReader:
    """A fresh copy of the trained network on the CPU, in eval mode.

    It takes float32 images [batch, 1, 8, 8] in 0..1 and gives logits [batch, 10].
    Each call builds a new one, so hooks left on one copy are never seen on another,
    and torch's random generator stays where it was. Made by scripts/train_demo.py.

    >>> import torch
    >>> from hookline import demo
    >>> reader = demo.model()
    >>> reader.training
    False
    >>> reader(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    # Built without memory first: drawing starting weights would move the caller's random generator.
    with torch.device("meta"):
        reader = DigitReader()

    reader.to_empty(device="cpu")
    reader.load_state_dict(load_file(WEIGHTS))
    return reader.eval()


def digits() -> tuple[Tensor, Tensor]:
    """The images that training never saw, and the digit that each one shows.

    Images are float32 [400, 1, 8, 8] in 0..1, labels int64 [400] in 0..9.
    Source: UCI "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, 1998,
    DOI 10.24432/C50P49, CC BY 4.0, the test part as scikit-learn ships it.

    >>> from hookline import demo
    >>> images, labels = demo.digits()
    >>> images.shape, labels.shape
    (torch.Size([400, 1, 8, 8]), torch.Size([400]))
    >>> guesses = demo.model()(images).argmax(dim=1)
    >>> bool((guesses == labels).float().mean() >= 0.97)
    True
    """
    stored = load_file(DIGITS)
    return stored["images"].float() / BRIGHTEST, stored["labels"].long()

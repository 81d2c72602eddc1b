"""Trains the demo network on the UCI digits and writes the two files that hookline.demo ships."""

import argparse
from dataclasses import dataclass

import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional

from hookline.demo import BRIGHTEST, DIGITS, WEIGHTS
from hookline.demo.network import DigitReader

HELD_OUT = 400
SPLIT_SEED = 0
BATCH = 64
PEAK_RATE = 4e-3
REPORT_EVERY = 5


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the images, uint8 [n, 1, 8, 8] in 0..16, and their labels, uint8 [n]."""

    images: Tensor
    labels: Tensor

    def scaled(self) -> tuple[Tensor, Tensor]:
        """Images float32 in 0..1 and labels int64, as the network and the loss take them."""
        return self.images.float() / BRIGHTEST, self.labels.long()


def main() -> None:
    """Trains, prints the held-out accuracy and writes both files."""
    arguments = parse_arguments()
    training, held_out = split()

    reader = train(training, epochs=arguments.epochs, seed=arguments.seed)
    save_file(reader.state_dict(), WEIGHTS)
    save_file({"images": held_out.images, "labels": held_out.labels}, DIGITS)

    print(f"held-out accuracy {accuracy(reader, held_out):.4f} on {len(held_out.labels)} images")
    for path in (WEIGHTS, DIGITS):
        print(f"{path.name} {path.stat().st_size:,} bytes")


def parse_arguments() -> argparse.Namespace:
    """The command line: `epochs` and `seed`, both int."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20, help="passes over the training images")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights, the order and the dropout")
    return parser.parse_args()


def split() -> tuple[Part, Part]:
    """The training part and the held-out part: the same two whatever the training seed."""
    source = load_digits()
    images = torch.from_numpy(source.images).to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(source.target).to(torch.uint8)

    training, held_out = train_test_split(
        range(len(labels)), test_size=HELD_OUT, random_state=SPLIT_SEED, stratify=source.target
    )
    return Part(images[training], labels[training]), Part(images[held_out], labels[held_out])


def train(part: Part, *, epochs: int, seed: int) -> DigitReader:
    """A network trained on `part`, in eval mode; the same weights for the same arguments."""
    # One thread, because the order of a sum, and so its last bit, depends on how many share it.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)

    reader = DigitReader()
    optimizer = torch.optim.AdamW(reader.parameters(), weight_decay=0.05)
    steps = epochs * -(-len(part.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=PEAK_RATE, total_steps=steps)

    for epoch in range(1, epochs + 1):
        loss = train_epoch(reader, part, optimizer=optimizer, schedule=schedule)
        if epoch % REPORT_EVERY == 0:
            print(f"epoch {epoch:3d}  loss {loss:.4f}", flush=True)
    return reader.eval()


def train_epoch(
    reader: DigitReader,
    part: Part,
    *,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """The mean loss of one pass over `part` in a new random order."""
    images, labels = part.scaled()
    total = 0.0

    for chosen in torch.split(torch.randperm(len(labels)), BATCH):
        loss = functional.cross_entropy(reader(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        total += loss.item() * len(chosen)
    return total / len(labels)


@torch.no_grad()
def accuracy(reader: DigitReader, part: Part) -> float:
    """The fraction of `part`, 0..1, that the network reads correctly."""
    images, labels = part.scaled()
    guesses: Tensor = reader(images).argmax(dim=1)
    return (guesses == labels).float().mean().item()


if __name__ == "__main__":
    main()

"""A program that saves to one folder again and again, for the tests that kill it or run several of it."""

import os
import sys
from itertools import count

import torch

from hookline.store import place
from hookline.store.folder import write


def main(folder: str, times: str, swap: str) -> None:
    """Save so often (0: until killed); without `swap` as on a file system that cannot swap names."""
    if swap == "in turn":
        place.exchange = lambda one, other: False
    for number in count(1):
        name = os.getpid() * 1_000_000 + number
        write(folder, {"name": name}, {"a": torch.full((1000,), float(name), dtype=torch.float64)})
        if number == 1:
            print("saved", flush=True)
        if number == int(times):
            return


if __name__ == "__main__":
    main(*sys.argv[1:])

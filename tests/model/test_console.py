"""Printing, saving and paging draw from no generator."""

import subprocess
import sys

import pytest

PROGRAM = """
import random, sys
import torch, hookline
from torch import nn

model, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.ones(1, 3)
with hookline.watch(model) as run:
    model(x)
state, drawn = random.getstate(), torch.get_rng_state()
{use}
assert random.getstate() == state, "Python's generator moved"
assert torch.equal(torch.get_rng_state(), drawn), "PyTorch's generator moved"
"""
USES = {
    "print": "print(run)",
    "select": "print(hookline.select(model, '*'))",
    "page": f"run.page({'{folder!r}'} + '/run.html')",
    "sweep": "hookline.sweep(model, '*', hookline.edits.zero(), lambda output, batch: output.sum(), [x])",
    "check": "print(hookline.check(model, x))",
    "diff": "print(hookline.diff(model, model, x))",
    "profile": "print(hookline.profile(model, x))",
    "hooks": "print(hookline.hooks(model))",
}


def pytest_generate_tests(metafunc):
    metafunc.parametrize("use", USES.values(), ids=USES)


@pytest.mark.slow
def test_the_first_use_of_a_process_moves_no_generator(use, tmp_path):
    program = PROGRAM.format(use=use.format(folder=str(tmp_path)))
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""Training turns to NaN after a while: which module makes the first one, in which step, and why?"""

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import hookline


class Spread(nn.Module):
    """The standard deviation of each sample, as a root whose derivative has no end at 0."""

    def forward(self, x: Tensor) -> Tensor:
        """One number [batch, 1] for each row of [batch, features]."""
        return x.var(dim=1, keepdim=True).sqrt()


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), Spread(), nn.Linear(1, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

with hookline.check(model) as findings:
    for step in range(20):
        x = torch.randn(8, 4)
        x[0] *= step != 10  # in one batch, a sample is all zeros
        optimizer.zero_grad()
        loss = mse_loss(model(x), x.std(dim=1, keepdim=True))
        loss.backward()
        optimizer.step()

print(f"the loss is {loss.item()}")
print(findings)

first = findings.of("nonfinite-gradient")[0]
given = findings.run[first.path, first.call].args[0]
print(f"first: {first.path}, call {first.call}, with a smallest input of {given.min:.3g} and {given.zeros:.0%} zeros")

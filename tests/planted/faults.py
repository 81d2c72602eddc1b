"""Planted faults: small models and training runs, each with one known fault, and where `check` is to find it."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW
from toys import Gives

import hookline
from hookline import Findings


@dataclass(frozen=True, slots=True)
class Fault:
    """One planted fault.

    `find` builds the model, plants the fault and gives what the check finds; `rule` and `path` say what it is to name;
    `also` holds rules that may speak up too, since the fault makes what they look for as well.
    """

    name: str
    about: str
    rule: str
    path: str
    find: Callable[[], Findings]
    also: tuple[str, ...] = ()


FAULTS: list[Fault] = []


def planted(rule: str, path: str, *, also: tuple[str, ...] = ()) -> Callable[[Callable[[], Findings]], None]:
    """Puts a function that plants and checks a fault on the list, under its own name; its docstring tells the fault."""

    def put(find: Callable[[], Findings]) -> None:
        def seeded() -> Findings:
            torch.manual_seed(0)
            return find()

        about = (find.__doc__ or "").strip().rstrip(".")
        FAULTS.append(Fault(find.__name__.replace("_", " "), about, rule, path, seeded, also))

    return put


# What several faults are planted in


class Applies(nn.Module):
    """A module of no parameters that applies a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Around(nn.Module):
    """A linear layer with code of its own after it."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.linear(x))


class Branches(nn.Module):
    """A trunk, two heads, and a function that says what becomes of what they give."""

    def __init__(self, join: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.trunk = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)
        self.branch = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4))
        self.last = nn.Linear(4, 4)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.join(self, self.trunk(x)))


def perceptron(*, activation: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), activation or nn.GELU(), nn.Linear(16, 4))


def batches(count: int = 3, *, size: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    for _ in range(count):
        yield torch.randn(size, 8), torch.randint(4, (size,))


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, *, count: int = 3) -> Findings:
    """Trains a classifier for a few steps under a check."""
    with hookline.check(model) as findings:
        for x, y in batches(count):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return findings


# NaN and Inf


@planted("nonfinite-output", "1")
def log_of_a_negative_number() -> Findings:
    """A module takes the logarithm of numbers below 0."""
    return hookline.check(nn.Sequential(nn.Linear(8, 8), Applies(torch.log), nn.Linear(8, 4)), torch.randn(4, 8))


@planted("nonfinite-output", "1")
def log_of_zero() -> Findings:
    """The logarithm of a ReLU's output is -Inf, and NaN two layers later."""
    model = nn.Sequential(nn.ReLU(), Applies(torch.log), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4))
    return hookline.check(model, torch.randn(16, 8))


@planted("nonfinite-output", "1", also=("alike-rows",))
def overflow_in_a_half_precision_matmul() -> Findings:
    """A float16 matrix product overflows."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8)).half()
    with torch.no_grad():
        model[1].weight.fill_(9e3)
    return hookline.check(model, torch.ones(4, 8).half() * 20)


@planted("nonfinite-output", "1")
def division_by_zero_in_a_containers_own_code() -> Findings:
    """A block divides 0 by 0 in its own code, after its layer."""
    model = nn.Sequential(nn.Linear(8, 8), Around(lambda x: (x - x) / (x - x)), nn.Linear(8, 4))
    return hookline.check(model, torch.randn(4, 8))


@planted("nonfinite-output", "softmax")
def a_row_that_is_masked_altogether() -> Findings:
    """An attention mask of -Inf over a whole row: the softmax returns NaN."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores = nn.Linear(8, 6)
            self.softmax = nn.Softmax(dim=-1)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return self.softmax(self.scores(x).masked_fill(mask, -math.inf))

    return hookline.check(Masked(), torch.randn(4, 8), torch.arange(4)[:, None] == 2)


@planted("nonfinite-output", "0.parametrizations.weight.0")
def weight_norm_of_a_zero_row() -> Findings:
    """A weight-normalized layer has a row of zeros, which is divided by its norm."""
    layer = nn.Linear(8, 8)
    with torch.no_grad():
        layer.weight[0] = 0
    return hookline.check(nn.Sequential(nn.utils.parametrizations.weight_norm(layer)), torch.randn(4, 8))


@planted("nonfinite-parameter", "2")
def a_weight_that_is_nan() -> Findings:
    """One element of a weight is NaN before the first call."""
    model = perceptron()
    with torch.no_grad():
        model[2].weight[1, 1] = math.nan
    return hookline.check(model, torch.randn(4, 8))


@planted("nonfinite-parameter", "0")
def a_weight_that_a_step_makes_inf() -> Findings:
    """A learning rate at which the first training step overflows float32."""
    model = perceptron()
    optimizer = SGD(model.parameters(), lr=3e38)
    with hookline.check(model) as findings:
        for x, _ in batches(2):
            model(x).square().sum().mul(1e5).backward()
            optimizer.step()
    return findings


@planted("nonfinite-input", "")
def an_input_that_is_nan() -> Findings:
    """A value of the data is NaN."""
    x = torch.randn(4, 8)
    x[1, 3] = math.nan
    return hookline.check(perceptron(), x)


@planted("nonfinite-input", "")
def the_third_batch_is_nan() -> Findings:
    """Training goes well until a batch holds NaN."""
    model = perceptron()
    optimizer = SGD(model.parameters(), lr=0.01)
    with hookline.check(model) as findings:
        for number, (x, y) in enumerate(batches(4)):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x * (math.nan if number == 2 else 1)), y).backward()
            optimizer.step()
    return findings


@planted("nonfinite-loss", "")
def a_loss_of_log_zero() -> Findings:
    """The loss takes the logarithm of a probability that is 0."""
    return hookline.check(perceptron(), torch.randn(4, 8), loss=lambda output: -(output * 0).log().mean())


@planted("nonfinite-gradient", "1")
def the_derivative_of_a_root_at_zero() -> Findings:
    """A module takes the root of zeros: finite, with an infinite derivative."""
    model = nn.Sequential(nn.Linear(8, 8), Applies(torch.sqrt), nn.Linear(8, 4))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.zero_()
    return hookline.check(model, torch.randn(4, 8))


@planted("nonfinite-gradient", "1")
def a_root_at_zero_in_a_containers_own_code() -> Findings:
    """The same in the own code of a block, after its layer."""
    model = nn.Sequential(nn.Linear(8, 8), Around(lambda x: (x - x.detach()).sqrt()), nn.Linear(8, 4))
    return hookline.check(model, torch.randn(4, 8))


@planted("nonfinite-gradient", "")
def a_gradient_that_comes_in_as_nan() -> Findings:
    """The user's own loss has a finite value and a gradient that is NaN."""
    model = perceptron()
    with hookline.check(model) as findings:
        (model(torch.randn(4, 8)) * 0).norm(dim=1).pow(0.5).sum().backward()
    return findings


@planted("near-overflow", "1")
def a_half_precision_value_near_the_end_of_its_range() -> Findings:
    """Activations in float16 reach 40000 of 65504."""
    model = nn.Sequential(nn.Linear(8, 8), Applies(lambda x: x.sign() * 4e4 + x), nn.LayerNorm(8)).half()
    return hookline.check(model, torch.randn(4, 8).half())


# Activity


@planted("dead-units", "1", also=("constant-output",))
def a_dead_bank_of_rectifiers() -> Findings:
    """A bias of -100 before a ReLU: no unit is ever active."""
    model = perceptron(activation=nn.ReLU())
    with torch.no_grad():
        model[0].bias.fill_(-100)
    return hookline.check(model, torch.randn(32, 8))


@planted("dead-units", "1")
def half_a_bank_of_dead_rectifiers() -> Findings:
    """Ten of sixteen units are never active in five batches of training."""
    model = perceptron(activation=nn.ReLU())
    with torch.no_grad():
        model[0].bias[:10] = -100
    return trained(model, SGD(model.parameters(), lr=0.01), count=5)


@planted("dead-units", "1")
def dead_channels_of_a_convolution() -> Findings:
    """Three of four channels of a convolution are never active."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    with torch.no_grad():
        model[0].bias[1:] = -100
    return hookline.check(model, torch.randn(4, 3, 8, 8))


@planted("saturated", "1")
def a_saturated_tanh() -> Findings:
    """Weights a thousand times too large before a tanh."""
    model = perceptron(activation=nn.Tanh())
    with torch.no_grad():
        model[0].weight.mul_(1000)
    return hookline.check(model, torch.randn(32, 8))


@planted("saturated", "gate")
def a_saturated_gate() -> Findings:
    """A sigmoid gate that a bias holds open."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value, self.score, self.gate = nn.Linear(8, 8), nn.Linear(8, 8), nn.Sigmoid()

        def forward(self, x: Tensor) -> Tensor:
            return self.value(x) * self.gate(self.score(x) + 7)

    return hookline.check(Gated(), torch.randn(32, 8))


@planted("collapsed-softmax", "softmax")
def attention_without_its_scale() -> Findings:
    """Scores a hundred times too large: each row attends to one place."""

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.key = nn.Linear(64, 64)
            self.softmax = nn.Softmax(dim=-1)
            self.out = nn.Linear(64, 4)

        def forward(self, x: Tensor) -> Tensor:
            scores = x @ self.key(x).transpose(-1, -2) * 100
            return self.out(self.softmax(scores) @ x)

    return hookline.check(Attends(), torch.randn(2, 16, 64))


@planted("constant-output", "1")
def a_softmax_over_one_class() -> Findings:
    """A softmax over a dimension of size 1 returns 1 for every input."""
    return hookline.check(nn.Sequential(nn.Linear(8, 1), nn.Softmax(dim=-1)), torch.randn(16, 8))


@planted("constant-output", "")
def a_model_that_ignores_its_input() -> Findings:
    """Every sample of the batch has the same output, since features are averaged over the batch."""

    class Averages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.mean(dim=0)).expand(len(x), 4)

    return hookline.check(Averages(), torch.randn(16, 8))


# Gradients


@planted("vanishing-gradient", "0", also=("constant-output",))
def a_deep_network_of_sigmoids() -> Findings:
    """Twelve layers with a sigmoid each: each passes at most a fourth of the gradient."""
    model = nn.Sequential(*(layer for _ in range(12) for layer in (nn.Linear(16, 16), nn.Sigmoid())))
    return hookline.check(model, torch.randn(8, 16))


@planted("exploding-gradient", "cell", also=("exploding-activation",))
def a_recurrent_network_that_explodes() -> Findings:
    """A recurrent weight with a norm far above 1, over 24 time steps."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.RNNCell(4, 8, nonlinearity="relu")
            self.out = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            state = x.new_zeros(len(x), 8)
            for step in x.unbind(dim=1):
                state = self.cell(step, state)
            return self.out(state)

    model = Recurrent()
    with torch.no_grad():
        model.cell.weight_hh.copy_(2 * torch.eye(8))
        model.cell.bias_hh.fill_(1)
    return hookline.check(model, torch.randn(4, 24, 4))


@planted("exploding-gradient", "layers.0")
def a_deep_network_with_weights_too_large() -> Findings:
    """Ten layers, whose weights are drawn from a standard normal distribution."""

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(10))

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x).relu()
            return x

    model = Deep()
    with torch.no_grad():
        for layer in model.layers:
            layer.weight.normal_()
    return hookline.check(model, torch.randn(8, 32))


@planted("no-gradient", "branch")
def a_detached_branch() -> Findings:
    """The output of a branch is detached before it is added."""
    model = Branches(lambda self, x: self.head(x) + self.last(self.branch(x).detach()))
    return hookline.check(model, torch.randn(8, 8))


@planted("no-gradient", "branch")
def a_branch_without_gradients() -> Findings:
    """A branch runs under torch.no_grad(), and its parameters require gradients."""

    def join(self: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            branch = self.branch(x)
        return self.head(x) + branch

    return hookline.check(Branches(join), torch.randn(8, 8))


@planted("no-gradient", "branch")
def an_output_that_the_loss_leaves_out() -> Findings:
    """A branch is called, but the loss does not depend on it."""

    def join(self: Any, x: Tensor) -> Tensor:
        self.branch(x)
        return self.head(x)

    return hookline.check(Branches(join), torch.randn(8, 8))


@planted("no-gradient", "")
def a_model_whose_output_is_detached() -> Findings:
    """The model detaches its output, so that it cannot be trained."""
    return hookline.check(nn.Sequential(perceptron(), Applies(Tensor.detach)), torch.randn(8, 8))


@planted("no-gradient", "1")
def a_weight_that_a_layer_does_not_use() -> Findings:
    """A layer has a second weight, but its forward uses only the first."""

    class Forgets(nn.Linear):
        def __init__(self) -> None:
            super().__init__(8, 8)
            self.second = nn.Parameter(torch.randn(8, 8))

    return hookline.check(nn.Sequential(nn.Linear(8, 8), Forgets()), torch.randn(8, 8))


@planted("frozen-parameter", "2")
def a_layer_that_was_left_frozen() -> Findings:
    """One of five equal layers requires no gradient; those before and after it do."""
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(5)))
    model[2].weight.requires_grad_(False)
    return hookline.check(model, torch.randn(8, 8))


# Modules


@planted("never-called", "branch")
def an_unused_head() -> Findings:
    """A branch that the forward never calls, with parameters to train."""
    return hookline.check(Branches(lambda self, x: self.head(x)), torch.randn(8, 8))


@planted("wrong-mode", "")
def training_in_evaluation_mode() -> Findings:
    """model.eval() was called for validation, and model.train() was forgotten."""
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(0.5), nn.Linear(16, 4)).eval()
    return trained(model, SGD(model.parameters(), lr=0.01))


@planted("wrong-mode", "1")
def batch_norm_in_training_inside_of_evaluation() -> Findings:
    """A batch norm was set to train mode in a model in eval mode."""
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Linear(16, 4)).eval()
    model[1].train()
    return hookline.check(model, torch.randn(8, 8))


@planted("wrong-mode", "")
def validation_in_training_mode() -> Findings:
    """The model is measured under torch.no_grad(), with its dropout on."""
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 4))
    with hookline.check(model) as findings, torch.no_grad():
        for x, _ in batches():
            model(x)
    return findings


def modal() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(0.5), nn.Linear(16, 4))


@planted("wrong-mode", "")
def validation_in_training_mode_between_steps() -> Findings:
    """After every three steps the model is measured under torch.no_grad(), and model.eval() was forgotten."""
    model = modal()
    optimizer = SGD(model.parameters(), lr=0.01)
    with hookline.check(model) as findings:
        for number, (x, y) in enumerate(batches(6)):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            if number % 3 == 2:
                with torch.no_grad():
                    model(x)
    return findings


@planted("wrong-mode", "")
def training_goes_on_in_evaluation_mode() -> Findings:
    """model.train() was called once, and not again after the first validation."""
    model = modal()
    optimizer = SGD(model.parameters(), lr=0.01)
    with hookline.check(model) as findings:
        for number, (x, y) in enumerate(batches(6)):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            if number % 3 == 2:
                model.eval()
                with torch.no_grad():
                    model(x)
    return findings


@planted("one-value-norm", "1", also=("raised",))
def batch_norm_of_one_sample() -> Findings:
    """A batch of one sample reaches a batch norm in training, which raises."""
    return hookline.check(nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16)), torch.randn(1, 8))


@planted("one-value-norm", "1")
def layer_norm_of_one_feature() -> Findings:
    """A layer norm over a dimension of size 1 returns its bias for every input."""
    return hookline.check(nn.Sequential(nn.Linear(8, 1), nn.LayerNorm(1)), torch.randn(16, 8))


@planted("one-value-norm", "1")
def group_norm_of_one_pixel() -> Findings:
    """A group norm with as many groups as channels, on images of one pixel."""
    model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.GroupNorm(4, 4), nn.Flatten(), nn.Linear(4, 2))
    return hookline.check(model, torch.randn(4, 3, 8, 8))


@planted("dtype-changed", "1")
def float64_from_numpy() -> Findings:
    """A module multiplies by a float64 tensor, as numpy creates them."""
    scale = torch.linspace(0, 1, 8, dtype=torch.float64)
    return hookline.check(nn.Sequential(nn.Linear(8, 8), Applies(lambda x: x * scale)), torch.randn(4, 8))


@planted("dtype-changed", "1")
def a_cast_to_half_precision() -> Findings:
    """A module casts to float16 by hand, without autocast."""
    return hookline.check(nn.Sequential(nn.Linear(8, 8), Applies(Tensor.half)), torch.randn(4, 8))


@planted("device-changed", "1", also=("no-gradient",))
def a_tensor_on_another_device() -> Findings:
    """A module returns a tensor on a device that nothing else is on (the meta device, which every machine has)."""
    model = nn.Sequential(nn.Linear(8, 8), Applies(lambda x: torch.zeros(len(x), 8, device="meta")))
    with hookline.check(model) as findings:
        model(torch.randn(4, 8))
    return findings


@planted("raised", "1.linear")
def a_shape_that_does_not_fit() -> Findings:
    """A layer receives eight features and expects nine."""
    model = nn.Sequential(nn.Linear(8, 8), Around(torch.tanh))
    model[1].linear = nn.Linear(9, 8)
    return hookline.check(model, torch.randn(4, 8))


# Training


@planted("large-update", "0")
def a_learning_rate_that_is_too_large() -> Findings:
    """AdamW with a learning rate of 1: a step is larger than the weight."""
    model = perceptron()
    return trained(model, AdamW(model.parameters(), lr=1.0))


@planted("unchanged-weight", "")
def an_optimizer_of_a_copy() -> Findings:
    """The optimizer was created for a copy of the model."""
    model = perceptron()
    twin = copy.deepcopy(model)
    return trained(model, SGD(twin.parameters(), lr=0.1))


@planted("unchanged-weight", "2")
def an_optimizer_that_misses_a_layer() -> Findings:
    """The optimizer was created before the last layer was replaced."""
    model = perceptron()
    optimizer = SGD(model.parameters(), lr=0.1)
    model[2] = nn.Linear(16, 4)
    return trained(model, optimizer)


@planted("unchanged-weight", "0")
def a_learning_rate_of_zero() -> Findings:
    """A schedule has brought the learning rate to 0."""
    model = perceptron()
    return trained(model, SGD(model.parameters(), lr=0.0))


@planted("unchanged-weight", "0")
def steps_that_are_lost_in_rounding() -> Findings:
    """bfloat16 weights and a learning rate so small that no weight changes."""
    model = perceptron().bfloat16()
    optimizer = SGD(model.parameters(), lr=1e-7)
    with hookline.check(model) as findings:
        for x, y in batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x.bfloat16()).float(), y).backward()
            optimizer.step()
    return findings


@planted("unchanged-weight", "")
def a_backward_pass_that_was_forgotten() -> Findings:
    """optimizer.step() runs, and loss.backward() was forgotten."""
    model = perceptron()
    optimizer = SGD(model.parameters(), lr=0.1)
    with hookline.check(model) as findings:
        for x, y in batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y)
            optimizer.step()
    return findings


@planted("unchanged-weight", "")
def a_loss_that_is_detached_from_the_model() -> Findings:
    """The output is detached before the loss, and set to require a gradient again."""
    model = perceptron()
    optimizer = SGD(model.parameters(), lr=0.1)
    with hookline.check(model) as findings:
        for x, y in batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x).detach().requires_grad_(), y).backward()
            optimizer.step()
    return findings


@planted("unchanged-weight", "")
def a_step_that_was_forgotten() -> Findings:
    """loss.backward() runs, and optimizer.step() was forgotten."""
    model = perceptron()
    optimizer = SGD(model.parameters(), lr=0.1)
    with hookline.check(model) as findings:
        for x, y in batches(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
    return findings


@planted("changed-in-place", "1", also=("raised",))
def an_output_changed_in_place() -> Findings:
    """The output of a sigmoid is changed in place, and its backward needs it."""

    def add(x: Tensor) -> Tensor:
        x += 1
        return x

    return hookline.check(nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), Gives(add)), torch.randn(4, 8))


@planted("changed-in-place", "2", also=("raised",))
def a_step_before_the_backward() -> Findings:
    """optimizer.step() runs between the forward and the backward."""
    model = perceptron()
    optimizer = SGD(model.parameters(), lr=0.1)
    with suppress(RuntimeError), hookline.check(model) as findings:
        for x, y in batches():
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            loss.backward()
    return findings


# What stands in the way of learning


def classified(model: nn.Module, optimizer: torch.optim.Optimizer, *, count: int = 6, zero: bool = True) -> Findings:
    """Trains a classifier under a check, with a schedule or without zero_grad where a fault needs that."""
    with hookline.check(model) as findings:
        for x, y in batches(count):
            if zero:
                optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return findings


@planted("no-zero-grad", "")
def gradients_that_are_never_set_to_zero() -> Findings:
    """optimizer.zero_grad() was forgotten: each step uses the sum of all gradients so far"""
    model = perceptron()
    return classified(model, SGD(model.parameters(), lr=0.01), zero=False)


@planted("unregistered", "")
def layers_in_a_plain_list() -> Findings:
    """Layers are in a Python list, so that no optimizer has their parameters"""

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.head = [nn.Linear(8, 8), nn.Linear(8, 8)], nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x).tanh()
            return self.head(x)

    model = Stack()
    return classified(model, SGD(model.parameters(), lr=0.01))


@planted("unregistered", "0")
def parameters_in_a_plain_dict() -> Findings:
    """Parameters are in a Python dict"""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.scales = nn.Linear(8, 8), {"up": nn.Parameter(torch.ones(8))}

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * self.scales["up"]

    return hookline.check(nn.Sequential(Scaled(), nn.Linear(8, 4)), torch.randn(16, 8))


def with_softmax() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4), nn.Softmax(dim=-1))


@planted("loss-of-probabilities", "3")
def a_softmax_before_the_cross_entropy() -> Findings:
    """The model ends in a softmax, and the loss passed to the check is a cross entropy, which has its own"""
    labels = torch.randint(4, (16,))
    loss = lambda output: nn.functional.cross_entropy(output, labels)  # noqa: E731
    return hookline.check(with_softmax(), torch.randn(16, 8), loss=loss)


@planted("loss-of-probabilities", "3")
def a_softmax_before_the_cross_entropy_of_a_training_loop() -> Findings:
    """The same in a training loop, where only the gradient of the loss is seen"""
    model = with_softmax()
    return classified(model, SGD(model.parameters(), lr=0.01))


@planted("frozen-norm-updates", "trunk.1")
def a_frozen_trunk_whose_statistics_move() -> Findings:
    """A trunk is frozen, and model.train() lets its batch norm follow the new data"""
    trunk = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.GELU()).requires_grad_(False)
    model = nn.Sequential()
    model.add_module("trunk", trunk)
    model.add_module("head", nn.Linear(16, 4))
    return classified(model, SGD(model.head.parameters(), lr=0.01))


@planted("random-in-evaluation", "0")
def a_dropout_that_does_not_know_the_mode() -> Findings:
    """F.dropout without training=self.training drops in eval mode too"""

    class Drops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(self.linear(x), 0.1)

    return hookline.check(nn.Sequential(Drops(), nn.Linear(8, 4)).eval(), torch.randn(16, 8))


@planted("exploding-activation", "rnn", also=("exploding-gradient",))
def a_recurrent_layer_that_explodes_forward() -> Findings:
    """A recurrent layer with a ReLU and a recurrent weight of twice the identity, over 60 time steps"""
    model = last_step_of(nn.RNN(8, 16, nonlinearity="relu", batch_first=True), gain=2.0)
    return hookline.check(model, torch.randn(4, 60, 8), loss=lambda output: output.square().mean())


@planted("exploding-gradient", "rnn")
def a_recurrent_layer_that_explodes_backward() -> Findings:
    """A recurrent layer with a tanh whose states stay small, and a recurrent weight of four times an orthogonal one"""
    model = last_step_of(nn.RNN(8, 16, batch_first=True), gain=4.0)
    return hookline.check(model, torch.randn(4, 40, 8) * 1e-28, loss=lambda output: output.sum())


def last_step_of(rnn: nn.RNN, *, gain: float) -> nn.Module:
    nn.init.orthogonal_(rnn.weight_hh_l0, gain=gain)
    for bias in (rnn.bias_ih_l0, rnn.bias_hh_l0):
        nn.init.zeros_(bias)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = rnn, nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    return Last()


@planted("exploding-gradient", "")
def a_recurrence_without_modules_that_explodes() -> Findings:
    """A recurrence written out with a parameter, whose loss reaches 1e30"""

    class Recurrence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 8))

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(40):
                x = x @ self.weight
            return x

    return hookline.check(Recurrence(), torch.randn(4, 8), loss=lambda output: output.abs().mean())


@planted("learning-rate-ended", "")
def a_schedule_that_ends_too_early() -> Findings:
    """A schedule reaches a learning rate of 0 in the middle of training"""
    model = perceptron()
    optimizer = SGD(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=4)
    with hookline.check(model) as findings:
        for x, y in batches(8):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
    return findings


@planted("lost-updates", "0")
def bfloat16_weights_that_barely_move() -> Findings:
    """bfloat16 weights and a small learning rate: few of the elements change at all"""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 256), nn.GELU(), nn.Linear(256, 4)).bfloat16()
    optimizer = SGD(model.parameters(), lr=2e-3)
    with hookline.check(model, rules=[rule for rule in hookline.RULES if rule.name != "unchanged-weight"]) as findings:
        for x, y in batches(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x.bfloat16()).float(), y).backward()
            optimizer.step()
    return findings


@planted("underflow", "1")
def a_float16_product_below_the_smallest_number() -> Findings:
    """A float16 module multiplies two small numbers: all of its output is 0"""
    model = nn.Sequential(nn.Linear(8, 8), Applies(lambda x: x * 1e-5 * 1e-5), nn.Linear(8, 4)).half()
    return hookline.check(model, torch.randn(16, 8).half(), loss=lambda output: output.float().sum())


@planted("alike-rows", "0")
def a_constant_initialization() -> Findings:
    """Every weight of a layer starts at 0.1"""
    model = perceptron()
    nn.init.constant_(model[0].weight, 0.1)
    return hookline.check(model, torch.randn(16, 8))


@planted("dead-units", "first")
def dead_units_behind_a_function() -> Findings:
    """A bias of -100 before torch.relu, which is not a module"""

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last, self.skip = nn.Linear(8, 16), nn.Linear(16, 4), nn.Linear(8, 4)
            nn.init.constant_(self.first.bias, -100)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.first(x))) + self.skip(x)

    return hookline.check(Functional(), torch.randn(16, 8))


@planted("unused-in-ddp", "unused")
def a_parameter_that_data_parallelism_waits_for() -> Findings:
    """DistributedDataParallel raises in the second step, since a layer got no gradient in the first"""
    from tempfile import TemporaryDirectory

    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    with TemporaryDirectory() as folder:
        distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            model = DistributedDataParallel(Unused())
            findings = hookline.check(model)
            with suppress(RuntimeError), findings:
                for x, _ in batches(2):
                    model(x).sum().backward()
            return findings
        finally:
            distributed.destroy_process_group()

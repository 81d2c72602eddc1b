"""Healthy training runs that look like a fault from some side; a check is to find nothing above a note in them."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.optim import SGD, AdamW

import hookline
from hookline import Findings
from planted.faults import batches, perceptron, trained

HEALTHY: dict[str, Callable[[], Findings]] = {}


def healthy(run: Callable[[], Findings]) -> None:
    """Puts a run on the list, under its own name."""

    def seeded() -> Findings:
        torch.manual_seed(0)
        return run()

    HEALTHY[run.__name__.replace("_", " ")] = seeded


def loop(model: nn.Module, step: Callable[[Tensor, Tensor], None], *, count: int = 4) -> Findings:
    with hookline.check(model) as findings:
        for x, y in batches(count):
            step(x, y)
    return findings


def warmed_up(model: nn.Module, optimizer: torch.optim.Optimizer) -> Findings:
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=8)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()

    return loop(model, step, count=10)


@healthy
def plain_sgd() -> Findings:
    model = perceptron(activation=nn.ReLU())
    return trained(model, SGD(model.parameters(), lr=0.1, momentum=0.9), count=20)


@healthy
def adamw_on_a_deep_residual_network() -> Findings:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 32), nn.Linear(32, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.down(self.up(self.norm(x)).relu())

    model = nn.Sequential(*(Residual() for _ in range(12)), nn.LayerNorm(8), nn.Linear(8, 4))
    return trained(model, AdamW(model.parameters(), lr=1e-3), count=5)


@healthy
def a_warm_up_that_begins_at_a_learning_rate_of_zero() -> Findings:
    model = perceptron()
    optimizer = AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()

    return loop(model, step)


@healthy
def gradients_accumulated_over_batches() -> Findings:
    model = perceptron()
    optimizer = SGD(model.parameters(), lr=0.1)

    def step(x: Tensor, y: Tensor) -> None:
        for part, labels in zip(x.chunk(4), y.chunk(4), strict=True):
            (cross_entropy(model(part), labels) / 4).backward()
        optimizer.step()
        optimizer.zero_grad()

    return loop(model, step)


@healthy
def a_part_of_the_accumulation_of_gradients() -> Findings:
    model = perceptron()
    return loop(model, lambda x, y: cross_entropy(model(x), y).backward(), count=8)


@healthy
def a_step_that_is_written_by_hand() -> Findings:
    model = perceptron()

    def step(x: Tensor, y: Tensor) -> None:
        model.zero_grad()
        cross_entropy(model(x), y).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.data.sub_(parameter.grad, alpha=0.1)

    return loop(model, step)


@healthy
def gradients_taken_of_a_model_in_evaluation() -> Findings:
    model = perceptron().eval()

    def step(x: Tensor, y: Tensor) -> None:
        model.zero_grad()
        cross_entropy(model(x), y).backward()

    return loop(model, step, count=8)


@healthy
def gradients_that_are_put_in_by_hand() -> Findings:
    model = perceptron()
    optimizer = SGD(model.parameters(), lr=0.1)

    def step(x: Tensor, y: Tensor) -> None:
        names = dict(model.named_parameters())
        gradients = torch.autograd.grad(cross_entropy(model(x), y), [*names.values()])
        for parameter, gradient in zip(names.values(), gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()

    return loop(model, step)


@healthy
def a_head_on_a_frozen_trunk() -> Findings:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()) for _ in range(3)))
    model.requires_grad_(False).eval()
    model.append(nn.Linear(8, 4))
    return trained(model, AdamW(model[3].parameters(), lr=1e-3))


@healthy
def batch_norms_frozen_while_the_rest_is_trained() -> Findings:
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 4))
    model[1].eval()
    return trained(model, AdamW(model.parameters(), lr=1e-3))


@healthy
def low_rank_adapters_that_start_at_zero() -> Findings:
    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Linear(8, 8).requires_grad_(False)
            self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)
            nn.init.zeros_(self.up.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) + self.up(self.down(x))

    model = nn.Sequential(*(Adapted() for _ in range(4)))
    return trained(model, AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-3), count=6)


@healthy
def adapters_that_start_at_zero_and_warm_up() -> Findings:
    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Linear(8, 8).requires_grad_(False)
            self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)
            nn.init.zeros_(self.up.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) + self.up(self.down(x))

    model = nn.Sequential(*(Adapted() for _ in range(4)))
    optimizer = AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-3)
    return warmed_up(model, optimizer)


@healthy
def the_same_with_momentum() -> Findings:
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4))
    nn.init.zeros_(model[2].weight)
    return warmed_up(model, SGD(model.parameters(), lr=1e-2, momentum=0.9))


@healthy
def tokens_and_a_head_that_start_next_to_zero() -> Findings:
    class Pictures(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Linear(8, 16)
            self.token = nn.Parameter(torch.randn(1, 1, 16) * 1e-6)
            self.places = nn.Parameter(torch.zeros(1, 5, 16))
            self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
            self.head = nn.Linear(16, 4)
            nn.init.zeros_(self.head.weight)

        def forward(self, x: Tensor) -> Tensor:
            patches = self.patches(x)[:, None].expand(-1, 4, -1)
            tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], dim=1)
            return self.head(self.layer(tokens + self.places)[:, 0])

    model = Pictures()
    return warmed_up(model, AdamW(model.parameters(), lr=1e-3))


@healthy
def training_and_validation_in_turn() -> Findings:
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 4))
    optimizer = SGD(model.parameters(), lr=0.1)

    def step(x: Tensor, y: Tensor) -> None:
        model.train()
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            model(x)

    return loop(model, step)


@healthy
def labels_that_the_model_makes_for_itself() -> Findings:
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 4))
    optimizer = SGD(model.parameters(), lr=0.1)

    def step(x: Tensor, y: Tensor) -> None:
        with torch.no_grad():
            labels = (model(x) + model(x + 0.1)).argmax(dim=1)
        optimizer.zero_grad()
        cross_entropy(model(x), labels).backward()
        optimizer.step()

    return loop(model, step)


@healthy
def a_generator_that_makes_samples_without_gradients() -> Findings:
    pair = nn.ModuleDict(
        {"generator": nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8))}
    )
    pair["critic"] = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(), nn.Dropout(0.2), nn.Linear(16, 1))
    optimizers = {name: AdamW(each.parameters(), lr=1e-4) for name, each in pair.items()}

    def scored(name: str, given: Tensor, truth: float) -> None:
        optimizers[name].zero_grad()
        scores = pair["critic"](given)
        binary_cross_entropy_with_logits(scores, torch.full_like(scores, truth)).backward()
        optimizers[name].step()

    def step(x: Tensor, y: Tensor) -> None:
        for _ in range(2):
            scored("generator", pair["generator"](torch.randn(len(x), 4)), 1.0)
        with torch.no_grad():
            fake = pair["generator"](torch.randn(len(x), 4))
        scored("critic", fake, 0.0)
        scored("critic", x, 1.0)

    return loop(pair, step)


@healthy
def a_generator_alone_beside_its_critic() -> Findings:
    generator = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8))
    critic = nn.Linear(8, 1)
    making, judging = AdamW(generator.parameters(), lr=1e-4), AdamW(critic.parameters(), lr=1e-4)

    def step(x: Tensor, y: Tensor) -> None:
        making.zero_grad()
        (-critic(generator(torch.randn(len(x), 4))).mean()).backward()
        making.step()
        generator.eval()
        fake = generator(torch.randn(len(x), 4)).detach()
        generator.train()
        with torch.no_grad():
            fake = torch.cat([fake, generator(torch.randn(len(x), 4))])
        judging.zero_grad()
        (critic(fake).mean() - critic(x).mean()).backward()
        judging.step()

    return loop(generator, step)


@healthy
def an_attack_in_evaluation_before_each_step() -> Findings:
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 4))
    optimizer = SGD(model.parameters(), lr=0.1)

    def step(x: Tensor, y: Tensor) -> None:
        model.eval()
        x = x.requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(x), y), x)
        model.train()
        optimizer.zero_grad()
        cross_entropy(model((x + 0.1 * gradient.sign()).detach()), y).backward()
        optimizer.step()

    return loop(model, step)


@healthy
def autocast_to_bfloat16() -> Findings:
    model = perceptron()
    optimizer = AdamW(model.parameters(), lr=1e-3)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()

    return loop(model, step)


@healthy
def an_adversarial_pair() -> Findings:
    pair = nn.ModuleDict({"generator": nn.Linear(4, 8), "critic": nn.Sequential(nn.Linear(8, 16), nn.ReLU())})
    pair["critic"].append(nn.Linear(16, 1))
    optimizers = {name: AdamW(each.parameters(), lr=1e-4) for name, each in pair.items()}

    def step(x: Tensor, y: Tensor) -> None:
        fake = pair["generator"](torch.randn(len(x), 4))
        for name, given, truth in (("critic", fake.detach(), 0.0), ("critic", x, 1.0), ("generator", fake, 1.0)):
            optimizers[name].zero_grad()
            scores = pair["critic"](given)
            binary_cross_entropy_with_logits(scores, torch.full_like(scores, truth)).backward()
            optimizers[name].step()

    return loop(pair, step)


@healthy
def a_teacher_that_follows_its_student() -> Findings:
    student = perceptron()
    both = nn.ModuleDict({"student": student, "teacher": copy.deepcopy(student).requires_grad_(False).eval()})
    optimizer = SGD(student.parameters(), lr=0.1)

    def step(x: Tensor, y: Tensor) -> None:
        with torch.no_grad():
            target = both["teacher"](x)
        optimizer.zero_grad()
        (student(x) - target + 0.1).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            for mean, new in zip(both["teacher"].parameters(), student.parameters(), strict=True):
                mean.lerp_(new, 0.01)

    return loop(both, step)


@healthy
def a_recurrent_classifier() -> Findings:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.cell = nn.Embedding(50, 8), nn.GRUCell(8, 16)
            self.head = nn.Linear(16, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            state = torch.zeros(len(tokens), 16)
            for step in self.embedding(tokens).unbind(dim=1):
                state = self.cell(step, state)
            return self.head(state)

    model = Classifier()
    optimizer = AdamW(model.parameters(), lr=1e-3)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        cross_entropy(model(torch.randint(50, (len(x), 30))), y).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return loop(model, step)


@healthy
def attention_with_masks_of_minus_infinity() -> Findings:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    model = nn.ModuleDict({"encoder": encoder, "head": nn.Linear(8, 4)})
    optimizer = AdamW(model.parameters(), lr=1e-3)
    mask = nn.Transformer.generate_square_subsequent_mask(6)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        hidden = model["encoder"](torch.randn(len(y), 6, 8), mask=mask, is_causal=True)
        cross_entropy(model["head"](hidden[:, -1]), y).backward()
        optimizer.step()

    return loop(model, step)


@healthy
def a_mask_that_a_module_makes() -> Findings:
    class Mask(nn.Module):
        def forward(self, scores: Tensor) -> Tensor:
            return scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.mask, self.softmax = nn.Linear(8, 8), Mask(), nn.Softmax(dim=-1)

        def forward(self, x: Tensor) -> Tensor:
            return self.softmax(self.mask(self.query(x) @ x.T)) @ x

    model = nn.Sequential(Attends(), nn.Linear(8, 4))
    return trained(model, SGD(model.parameters(), lr=0.1))


@healthy
def a_trained_classifier_that_is_sure() -> Findings:
    model = nn.Sequential(nn.Linear(4, 4), nn.Softmax(dim=-1))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(4) * 100)
    return hookline.check(model.eval(), torch.eye(4).repeat(8, 1))


@healthy
def a_model_in_half_precision() -> Findings:
    model = perceptron().bfloat16()
    return hookline.check(model, torch.randn(16, 8).bfloat16(), loss=lambda output: output.float().square().mean())


@healthy
def a_picture_classifier() -> Findings:
    def block(inside: int, out: int) -> Any:
        return nn.Conv2d(inside, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)

    model = nn.Sequential(*block(3, 8), nn.MaxPool2d(2), *block(8, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(16, 4))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        cross_entropy(model(torch.randn(len(y), 3, 8, 8)), y).backward()
        optimizer.step()

    return loop(model, step)


@healthy
def a_batch_of_one_in_evaluation() -> Findings:
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4)).eval()
    return hookline.check(model, torch.randn(1, 8))


@healthy
def outputs_that_one_of_two_losses_leaves_out() -> Findings:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.trunk(x)
            return self.first(hidden), self.second(hidden)

    model = TwoHeads()
    optimizer = SGD(model.parameters(), lr=0.1)
    turn = iter(range(100))

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        cross_entropy(model(x)[next(turn) % 2], y).backward()
        optimizer.step()

    return loop(model, step)

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


def classified(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[Tensor, Tensor], None]:
    """A usual training step of a classifier."""

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


@healthy
def lbfgs_with_a_line_search() -> Findings:
    model = perceptron()
    optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")

    def step(x: Tensor, y: Tensor) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y)
            loss.backward()
            return loss

        optimizer.step(closure)

    return loop(model, step)


@healthy
def gradual_unfreezing() -> Findings:
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 4))
    model[:4].requires_grad_(False)
    optimizer = AdamW(model.parameters(), lr=1e-3)
    step, turn = classified(model, optimizer), iter(range(100))

    def staged(x: Tensor, y: Tensor) -> None:
        number = next(turn)
        if number == 3:
            model[2].requires_grad_(True)
        if number == 6:
            model[0].requires_grad_(True)
        step(x, y)

    return loop(model, staged, count=9)


@healthy
def unfreezing_in_the_last_line_of_the_block() -> Findings:
    model = perceptron()
    model[0].requires_grad_(False)
    step = classified(model, SGD(model.parameters(), lr=0.1))

    def then_unfrozen(x: Tensor, y: Tensor) -> None:
        model[0].requires_grad_(False)
        step(x, y)
        model[0].requires_grad_(True)

    return loop(model, then_unfrozen)


@healthy
def parameter_groups_added_while_training() -> Findings:
    model = perceptron()
    model[0].requires_grad_(False)
    optimizer = SGD(model[2].parameters(), lr=0.1)
    step, turn = classified(model, optimizer), iter(range(100))

    def staged(x: Tensor, y: Tensor) -> None:
        if next(turn) == 2:
            optimizer.add_param_group({"params": model[0].requires_grad_(True).parameters(), "lr": 0.01})
        step(x, y)

    return loop(model, staged, count=5)


@healthy
def mixture_of_experts() -> Findings:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router, self.experts = nn.Linear(8, 4), nn.ModuleList(perceptron() for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            weight, chosen = self.router(x).softmax(dim=-1).topk(2)
            output = x.new_zeros(len(x), 4)
            for number, expert in enumerate(self.experts):
                rows, places = (chosen == number).nonzero(as_tuple=True)
                if len(rows):
                    output = output.index_add(0, rows, weight[rows, places, None] * expert(x[rows]))
            return output

    model = Experts()
    return loop(model, classified(model, AdamW(model.parameters(), lr=1e-3)))


@healthy
def distillation_from_a_frozen_teacher() -> Findings:
    both = nn.ModuleDict({"teacher": perceptron().requires_grad_(False).eval(), "student": perceptron()})
    optimizer = AdamW(both["student"].parameters(), lr=1e-3)

    def step(x: Tensor, y: Tensor) -> None:
        with torch.no_grad():
            target = (both["teacher"](x) / 2).softmax(dim=-1)
        optimizer.zero_grad()
        scores = (both["student"](x) / 2).log_softmax(dim=-1)
        torch.nn.functional.kl_div(scores, target, reduction="batchmean").backward()
        optimizer.step()

    return loop(both, step)


@healthy
def a_teacher_hidden_in_a_list() -> Findings:
    class Student(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.teacher = perceptron(), [perceptron()]

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                target = self.teacher[0](x)
            return self.body(x), target

    model = Student()
    optimizer = SGD(model.parameters(), lr=0.1)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        scores, target = model(x)
        (scores - target).square().mean().backward()
        optimizer.step()

    return loop(model, step)


@healthy
def sharpness_aware_minimization() -> Findings:
    model = perceptron()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x: Tensor, y: Tensor) -> None:
        cross_entropy(model(x), y).backward()
        with torch.no_grad():
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            scale = 0.05 / torch.stack([each.norm() for each in gradients]).norm()
            moves = [each * scale for each in gradients]
            for parameter, move in zip(model.parameters(), moves, strict=True):
                parameter.add_(move)
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        with torch.no_grad():
            for parameter, move in zip(model.parameters(), moves, strict=True):
                parameter.sub_(move)
        optimizer.step()
        optimizer.zero_grad()

    return loop(model, step)


@healthy
def meta_learning_through_an_inner_step() -> Findings:
    from torch.func import functional_call

    model = perceptron()
    optimizer = AdamW(model.parameters(), lr=1e-3)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        names = dict(model.named_parameters())
        inner = cross_entropy(functional_call(model, names, (x[:8],)), y[:8])
        gradients = torch.autograd.grad(inner, [*names.values()], create_graph=True)
        fast = {name: each - 0.1 * grad for (name, each), grad in zip(names.items(), gradients, strict=True)}
        cross_entropy(functional_call(model, fast, (x[8:],)), y[8:]).backward()
        optimizer.step()

    return loop(model, step)


@healthy
def a_differential_equation_as_the_loss() -> Findings:
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = AdamW(model.parameters(), lr=1e-3)

    def step(x: Tensor, y: Tensor) -> None:
        t = torch.rand(64, 1, requires_grad=True)
        optimizer.zero_grad()
        u = model(t)
        (first,) = torch.autograd.grad(u.sum(), t, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), t, create_graph=True)
        start = model(torch.zeros(1, 1))
        ((second + u).square().mean() + (start - 1).square().mean()).backward()
        optimizer.step()

    return loop(model, step)


@healthy
def a_codebook_with_straight_through_gradients() -> Findings:
    class Quantized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder, self.codes = nn.Linear(8, 4), nn.Linear(4, 8), nn.Embedding(16, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.encoder(x)
            code = self.codes(torch.cdist(hidden, self.codes.weight).argmin(dim=1))
            loss = (code - hidden.detach()).square().mean() + 0.25 * (hidden - code.detach()).square().mean()
            return self.decoder(hidden + (code - hidden).detach()), loss

    model = Quantized()
    optimizer = AdamW(model.parameters(), lr=1e-3)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        output, loss = model(x)
        ((output - x).square().mean() + loss).backward()
        optimizer.step()

    return loop(model, step)


@healthy
def a_variational_autoencoder() -> Findings:
    class Variational(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(8, 8), nn.Linear(4, 8)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            mean, log_variance = self.encoder(x).chunk(2, dim=1)
            return self.decoder(mean + torch.randn_like(mean) * (log_variance / 2).exp()), mean, log_variance

    model = Variational()
    optimizer = AdamW(model.parameters(), lr=1e-3)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        output, mean, log_variance = model.train()(x)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2
        ((output - x).square().mean() + divergence).backward()
        optimizer.step()
        with torch.no_grad():
            model.eval()(x)

    return loop(model, step)


@healthy
def a_policy_and_a_value_with_clipped_ratios() -> Findings:
    class Actor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 16), nn.Tanh())
            self.policy, self.value = nn.Linear(16, 4), nn.Linear(16, 1)
            nn.init.orthogonal_(self.policy.weight, gain=0.01)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.body(x)
            return self.policy(hidden).log_softmax(dim=-1), self.value(hidden)[:, 0]

    model = Actor()
    optimizer = AdamW(model.parameters(), lr=3e-4)

    def step(x: Tensor, y: Tensor) -> None:
        with torch.no_grad():
            old, values = model(x)
            taken = torch.distributions.Categorical(logits=old).sample()
            rewards = torch.randn(len(x))
        for _ in range(3):
            optimizer.zero_grad()
            now, value = model(x)
            ratio = (now - old).gather(1, taken[:, None])[:, 0].exp()
            gain = rewards - values
            policy = -torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
            (policy + 0.5 * (value - rewards).square().mean()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()

    return loop(model, step)


@healthy
def choices_by_gumbel_softmax() -> Findings:
    class Chooses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores, self.values = nn.Linear(8, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.values(torch.nn.functional.gumbel_softmax(self.scores(x), hard=self.training))

    model = Chooses()
    step = classified(model, AdamW(model.parameters(), lr=1e-3))

    def and_measured(x: Tensor, y: Tensor) -> None:
        step(x, y)
        with torch.no_grad():
            model.eval()(x)
        model.train()

    return loop(model, and_measured)


@healthy
def sparse_gradients_of_an_embedding() -> Findings:
    model = nn.Sequential(nn.EmbeddingBag(50, 8, sparse=True), nn.Linear(8, 4))
    optimizers = torch.optim.SparseAdam([model[0].weight], lr=1e-3), SGD(model[1].parameters(), lr=0.1)

    def step(x: Tensor, y: Tensor) -> None:
        for each in optimizers:
            each.zero_grad()
        cross_entropy(model(torch.randint(50, (len(y), 5))), y).backward()
        for each in optimizers:
            each.step()

    return loop(model, step)


@healthy
def sampling_by_dropout_after_training() -> Findings:
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 4))
    step = classified(model, AdamW(model.parameters(), lr=1e-3))
    with hookline.check(model) as findings:
        for x, y in batches(4):
            step(x, y)
        model.eval()
        model[3].train()
        with torch.no_grad():
            torch.stack([model(x) for _ in range(10)]).std(dim=0)
    return findings


@healthy
def sampling_by_dropout_that_is_asked_for() -> Findings:
    class Samples(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.nn.functional.dropout(self.first(x).tanh(), 0.2, training=True))

    model = Samples()
    step = classified(model, AdamW(model.parameters(), lr=1e-3))
    with hookline.check(model) as findings:
        for x, y in batches(4):
            step(x, y)
        model.eval()
        with torch.no_grad():
            torch.stack([model(x) for _ in range(10)]).std(dim=0)
    return findings


@healthy
def momentum_contrast_with_batch_norms_in_the_slow_network() -> Findings:
    fast = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Linear(16, 8))
    both = nn.ModuleDict({"fast": fast, "slow": copy.deepcopy(fast).requires_grad_(False)})
    optimizer = SGD(fast.parameters(), lr=0.1)

    def step(x: Tensor, y: Tensor) -> None:
        with torch.no_grad():
            for mean, new in zip(both["slow"].parameters(), fast.parameters(), strict=True):
                mean.lerp_(new, 0.01)
            keys = torch.nn.functional.normalize(both["slow"](x + 0.1), dim=1)
        optimizer.zero_grad()
        queries = torch.nn.functional.normalize(fast(x), dim=1)
        cross_entropy(queries @ keys.T / 0.2, torch.arange(len(x))).backward()
        optimizer.step()

    return loop(both, step)


@healthy
def a_frozen_trunk_in_evaluation() -> Findings:
    trunk = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.GELU()).requires_grad_(False).eval()
    model = nn.ModuleDict({"trunk": trunk, "head": nn.Linear(16, 4)})
    optimizer = SGD(model["head"].parameters(), lr=0.1)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        cross_entropy(model["head"](trunk(x)), y).backward()
        optimizer.step()

    return loop(model, step)


@healthy
def a_cosine_schedule_to_its_end() -> Findings:
    model = perceptron()
    optimizer = AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
    step = classified(model, optimizer)
    return loop(model, lambda x, y: (step(x, y), schedule.step())[0], count=8)


@healthy
def one_cycle_of_learning_rates() -> Findings:
    model = perceptron()
    optimizer = SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=10)
    step = classified(model, optimizer)
    return loop(model, lambda x, y: (step(x, y), schedule.step())[0], count=10)


@healthy
def gradients_that_are_set_to_zero_in_place() -> Findings:
    model = perceptron()
    optimizer = SGD(model.parameters(), lr=0.1)

    def step(x: Tensor, y: Tensor) -> None:
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()

    return loop(model, step)


@healthy
def gradients_that_are_set_to_zero_by_hand() -> Findings:
    model = perceptron()
    optimizer = SGD(model.parameters(), lr=0.1)

    def step(x: Tensor, y: Tensor) -> None:
        cross_entropy(model(x), y).backward()
        optimizer.step()
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.data.zero_()

    return loop(model, step)


@healthy
def a_critic_that_keeps_the_generators_gradients_until_its_turn() -> Findings:
    pair = nn.ModuleDict({"generator": nn.Linear(4, 8), "critic": nn.Linear(8, 1)})
    optimizers = {name: AdamW(each.parameters(), lr=1e-4) for name, each in pair.items()}

    def step(x: Tensor, y: Tensor) -> None:
        optimizers["critic"].zero_grad()
        fake = pair["generator"](torch.randn(len(x), 4))
        (pair["critic"](fake.detach()).mean() - pair["critic"](x).mean()).backward()
        optimizers["critic"].step()
        optimizers["generator"].zero_grad()
        (-pair["critic"](fake).mean()).backward()
        optimizers["generator"].step()

    return loop(pair, step, count=6)


@healthy
def probabilities_that_are_used_as_such() -> Findings:
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4), nn.Softmax(dim=-1))
    optimizer = AdamW(model.parameters(), lr=1e-3)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        chances = model(x)
        torch.nn.functional.nll_loss(chances.clamp(min=1e-7).log(), y).backward()
        optimizer.step()

    return loop(model, step)


@healthy
def a_sigmoid_before_a_binary_cross_entropy() -> Findings:
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4), nn.Sigmoid())
    optimizer = AdamW(model.parameters(), lr=1e-3)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        labels = torch.nn.functional.one_hot(y, 4).float()
        torch.nn.functional.binary_cross_entropy(model(x), labels).backward()
        optimizer.step()

    return loop(model, step)


@healthy
def an_lstm_over_a_long_sequence() -> Findings:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(8, 16, num_layers=2, batch_first=True), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0][:, -1])

    model = Classifier()
    optimizer = AdamW(model.parameters(), lr=1e-3)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        cross_entropy(model(torch.randn(len(y), 100, 8)), y).backward()
        optimizer.step()

    return loop(model, step)


@healthy
def a_recurrence_with_relu_that_starts_at_the_identity() -> Findings:
    rnn = nn.RNN(8, 16, nonlinearity="relu", batch_first=True)
    nn.init.eye_(rnn.weight_hh_l0)
    nn.init.normal_(rnn.weight_ih_l0, std=0.01)
    for bias in (rnn.bias_ih_l0, rnn.bias_hh_l0):
        nn.init.zeros_(bias)
    model = nn.ModuleDict({"rnn": rnn, "head": nn.Linear(16, 4)})
    optimizer = SGD(model.parameters(), lr=0.01)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        cross_entropy(model["head"](rnn(torch.randn(len(y), 80, 8))[0][:, -1]), y).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return loop(model, step)


@healthy
def bfloat16_weights_at_a_usual_learning_rate() -> Findings:
    model = perceptron().bfloat16()
    optimizer = AdamW(model.parameters(), lr=1e-3)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        cross_entropy(model(x.bfloat16()).float(), y).backward()
        optimizer.step()

    return loop(model, step)


@healthy
def layer_scales_and_gates_that_start_constant() -> Findings:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear = nn.LayerNorm([2, 4]), nn.Linear(8, 8)
            self.scale, self.decay = nn.Parameter(torch.full((8, 1), 1e-2)), nn.Parameter(torch.ones(8, 8))

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.norm(x.view(-1, 2, 4)).flatten(1)
            return x + self.linear(hidden) * self.scale[:, 0] * (self.decay.mean(0)).sigmoid()

    model = nn.Sequential(Scaled(), Scaled(), nn.Linear(8, 4))
    return trained(model, AdamW(model.parameters(), lr=1e-3))


@healthy
def a_stack_of_rectified_functions() -> Findings:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Linear(8, 64), nn.Linear(64, 64), nn.Linear(64, 4)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.relu(self.second(torch.relu(self.first(x))))
            return self.last(torch.nn.functional.dropout(hidden, 0.5, training=self.training))

    model = Functional()
    return trained(model, SGD(model.parameters(), lr=0.1, momentum=0.9), count=20)


@healthy
def one_rectifier_for_many_layers() -> Findings:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8 if n == 0 else 32, 32) for n in range(4))
            self.relu, self.last = nn.ReLU(inplace=True), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = self.relu(layer(x))
            return self.last(x)

    model = Shared()
    return trained(model, AdamW(model.parameters(), lr=1e-3), count=10)


@healthy
def contrastive_pairs_with_a_learned_temperature() -> Findings:
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(8, 16), nn.Linear(8, 16)
            self.temperature = nn.Parameter(torch.tensor(2.6))

        def forward(self, x: Tensor) -> Tensor:
            left = torch.nn.functional.normalize(self.left(x), dim=-1)
            right = torch.nn.functional.normalize(self.right(x + 0.1), dim=-1)
            return left @ right.T * self.temperature.exp()

    model = Pairs()
    optimizer = AdamW(model.parameters(), lr=1e-3)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        scores, labels = model(x), torch.arange(len(x))
        ((cross_entropy(scores, labels) + cross_entropy(scores.T, labels)) / 2).backward()
        optimizer.step()

    return loop(model, step)


@healthy
def a_wasserstein_critic_with_a_gradient_penalty() -> Findings:
    pair = nn.ModuleDict({"generator": nn.Linear(4, 8)})
    pair["critic"] = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    optimizers = {name: AdamW(each.parameters(), lr=1e-4) for name, each in pair.items()}

    def step(x: Tensor, y: Tensor) -> None:
        for _ in range(2):
            fake = pair["generator"](torch.randn(len(x), 4)).detach()
            between = (x + torch.rand(len(x), 1) * (fake - x)).requires_grad_()
            (slope,) = torch.autograd.grad(pair["critic"](between).sum(), between, create_graph=True)
            optimizers["critic"].zero_grad()
            penalty = 10 * (slope.norm(dim=1) - 1).square().mean()
            (pair["critic"](fake).mean() - pair["critic"](x).mean() + penalty).backward()
            optimizers["critic"].step()
        pair["critic"].requires_grad_(False)
        optimizers["generator"].zero_grad()
        (-pair["critic"](pair["generator"](torch.randn(len(x), 4))).mean()).backward()
        optimizers["generator"].step()
        pair["critic"].requires_grad_(True)

    return loop(pair, step)


@healthy
def checkpointed_blocks() -> Findings:
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.1)) for _ in range(4))
            self.last = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = x + checkpoint(block, x, use_reentrant=False)
            return self.last(x)

    model = Checkpointed()
    return loop(model, classified(model, AdamW(model.parameters(), lr=1e-3)), count=8)


@healthy
def denoising_at_random_times() -> Findings:
    class Denoiser(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time, self.body = nn.Embedding(100, 8), nn.Sequential(nn.Linear(8, 32), nn.SiLU(), nn.Linear(32, 8))
            nn.init.zeros_(self.body[2].weight)

        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            return self.body(x + self.time(time))

    model = Denoiser()
    optimizer = AdamW(model.parameters(), lr=1e-3)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        noise, time = torch.randn_like(x), torch.randint(100, (len(x),))
        (model(x + noise, time) - noise).square().mean().backward()
        optimizer.step()

    return loop(model, step)


@healthy
def quantization_aware_training() -> Findings:
    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            weight = self.linear.weight
            rounded = weight + ((weight * 16).round() / 16 - weight).detach()
            return torch.nn.functional.linear(x, rounded, self.linear.bias)

    model = nn.Sequential(Rounded(), nn.ReLU(), nn.Linear(8, 4))
    return trained(model, SGD(model.parameters(), lr=0.1))


@healthy
def a_loss_scale_of_half_precision_training() -> Findings:
    model = perceptron()
    optimizer = SGD(model.parameters(), lr=0.1)
    scale = 2.0**16

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        (cross_entropy(model(x), y) * scale).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.div_(scale)
        optimizer.step()

    return loop(model, step)

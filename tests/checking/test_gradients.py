"""Missing gradients: which parameters could have had one."""

from planted.parts import X, told, train
from torch import nn
from torch.optim import SGD

import hookline


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))


def test_layer_unfrozen_inside_the_block_is_seen_to_be_trained() -> None:
    model = layers()
    model[0].requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1)
    with hookline.check(model) as findings:
        train(model, optimizer, steps=2)
        model[0].requires_grad_(True)
        train(model, optimizer, steps=2)

    assert list(findings) == []


def test_layer_unfrozen_after_the_last_backward_is_not_missed() -> None:
    model = layers()
    model[0].requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1)
    with hookline.check(model) as findings:
        train(model, optimizer, steps=2)
        model[0].requires_grad_(True)

    assert list(findings) == []


def test_layer_unfrozen_inside_and_left_out_of_the_loss_is_found() -> None:
    model = nn.ModuleDict({"body": nn.Linear(4, 4), "side": nn.Linear(4, 4)})
    model["side"].requires_grad_(False)
    with hookline.check(model) as findings:
        for step in range(3):
            model["side"].requires_grad_(step > 0)
            model["side"](X)
            model["body"](X).sum().backward()

    assert told(findings, "no-gradient") == [("side", "warning")]


def test_layer_put_in_inside_the_block_is_seen_to_be_trained() -> None:
    model = layers()
    with hookline.check(model) as findings:
        model[2] = nn.Linear(8, 4)
        train(model, SGD(model.parameters(), lr=0.1), steps=3)

    assert told(findings, "no-gradient") == []
    assert findings.run.calls


def test_lazy_layer_made_inside_the_block_is_seen_to_be_trained() -> None:
    model = nn.Sequential(nn.LazyLinear(8), nn.GELU(), nn.Linear(8, 4))
    with hookline.check(model) as findings:
        model(X)
        train(model, SGD(model.parameters(), lr=0.1), steps=3)

    assert findings.at_least("warning") == []

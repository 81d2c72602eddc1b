"""Watched models in PyTorch's modes and on its other kinds of tensors."""

import warnings

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import hookline

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("keep", ["shape", "stats", "histogram", "tensor", "copy"])
def test_a_watched_model_gives_the_same_bits_in_a_mode(model, mode, keep):
    with MODES[mode]():
        plain = model(X)
        with hookline.watch(model, keep=keep, grads=True) as run:
            assert torch.equal(model(X), plain)
    assert [call.path for call in run] == ["", "0", "1", "2"]


def test_under_autocast_what_is_recorded_has_the_dtype_that_it_had(model):
    with torch.autocast("cpu", torch.bfloat16), hookline.watch(model) as run:
        model(X)
    assert (run["0"].args[0].dtype, run["0"].output.dtype) == (torch.float32, torch.bfloat16)


def test_under_autocast_gradients_are_the_same_bits(model):
    def step():
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            result = model(X).float().square().sum()
        result.backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    plain = step()
    with hookline.watch(model, grads=True):
        assert all(map(torch.equal, step(), plain))


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("keep", ["shape", "stats", "histogram"])
def test_a_dispatch_mode_sees_the_operations_of_the_model_alone(model, keep):
    with Operations() as plain:
        model(X)
    with hookline.watch(model, keep=keep), Operations() as watched:
        model(X)
    assert watched.seen == plain.seen


def test_flops_are_counted_as_without_a_watch(model):
    with FlopCounterMode(display=False) as plain:
        model(X)
    with hookline.watch(model), FlopCounterMode(display=False) as watched:
        model(X)
    assert watched.get_total_flops() == plain.get_total_flops()


# Tensors without data


@pytest.mark.parametrize("keep", ["shape", "stats", "copy"])
def test_a_fake_model_is_recorded_by_shape(keep):
    with FakeTensorMode():
        model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        with hookline.watch(model, keep=keep, grads=True) as run:
            output = model(torch.randn(3, 4))
            output.sum().backward()
    assert isinstance(output, FakeTensor)
    assert [(call.output.shape, call.output.stats) for call in run] == [((3, 2), None), ((3, 8), None), ((3, 2), None)]
    assert run["0"].output.grad.shape == (3, 8)


def test_shapes_of_a_model_in_memory_cost_no_memory_in_fake_mode(model):
    with FakeTensorMode(allow_non_fake_inputs=True), hookline.watch(model, keep="shape") as run:
        model(torch.randn(10**6, 4))
    assert run["0"].output.shape == (10**6, 8)


@pytest.mark.parametrize("keep", ["shape", "stats", "copy"])
def test_a_meta_model_is_recorded_by_shape(keep):
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 10**9), nn.Linear(10**9, 2))
    with hookline.watch(model, keep=keep, grads="input") as run:
        model(torch.empty(3, 4, device="meta", requires_grad=True)).sum().backward()
    assert (run["0"].output.shape, run["0"].output.device.type, run["0"].output.stats) == ((3, 10**9), "meta", None)
    assert run["0"].grad_input[0].shape == (3, 4)


# Other classes of tensors


class Tagged(torch.Tensor):
    """A subclass with nothing of its own."""


@pytest.mark.parametrize("grads", [True, "input"])
def test_a_tensor_subclass_comes_out_as_it_would(model, grads):
    x = X.clone().as_subclass(Tagged).requires_grad_()
    plain = model(x)
    with hookline.watch(model, grads=grads) as run:
        output = model(x)
        output.sum().backward()
    assert type(output) is type(plain) is Tagged
    assert torch.equal(output, plain)
    assert run[""].output.stats.norm == pytest.approx(plain.detach().norm().item())


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.parametrize("grads", [True, "input"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_have_figures_of_all_their_elements(layout, grads):
    model = nn.Linear(4, 4)
    x = torch.nested.nested_tensor([X[:1], X[1:]], layout=layout, requires_grad=True)
    with hookline.watch(model, grads=grads) as run:
        output = model(x)
        torch.cat([*output.unbind()]).sum().backward()
    assert (run[""].output.shape, run[""].output.stats.count) == ((2, -1, 4), 12)
    assert run[""].output.grad.mean == 1


# Modules that take short cuts


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.TransformerEncoder(layer, 2, enable_nested_tensor=True).eval()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_the_fast_path_of_an_encoder_is_taken_under_a_watch(encoder):
    x, mask = torch.randn(2, 5, 8), torch.zeros(2, 5, dtype=torch.bool)
    mask[0, 3:] = True
    with torch.no_grad():
        plain = encoder(x, src_key_padding_mask=mask)
        with hookline.watch(encoder) as run:
            assert torch.equal(encoder(x, src_key_padding_mask=mask), plain)
    assert [call.path for call in run] == ["", "layers.0", "layers.1"]
    assert run["layers.0"].output.shape == (2, -1, 8)


def test_the_children_that_it_skips_are_told_as_never_called(encoder):
    with torch.no_grad(), hookline.watch(encoder) as run:
        encoder(torch.randn(2, 5, 8))
    assert "layers.0.linear1" in run.never_called
    assert "watched but never called" in repr(run)


EXACTLY = {
    "by path": lambda model: "self_attn.out_proj",
    "by glob": lambda model: "**.out_proj",
    "itself": lambda model: model.self_attn.out_proj,
    "by class": lambda model: type(model.self_attn.out_proj),
}


@pytest.mark.parametrize("where", EXACTLY.values(), ids=EXACTLY)
@pytest.mark.parametrize(
    "pick",
    [
        lambda model, where: hookline.select(model, where),
        lambda model, where: hookline.watch(model, where),
        lambda model, where: hookline.on(model, where, after=print).remove(),
    ],
    ids=["select", "watch", "on"],
)
def test_selecting_only_out_proj_of_an_attention_warns(where, pick):
    model = nn.TransformerEncoderLayer(8, 2, 16)
    with pytest.warns(UserWarning, match=r"self_attn\.out_proj is never called: .*; use self_attn instead") as caught:
        pick(model, where(model))
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("where", ["**", "self_attn.**", "linear1", nn.Linear])
def test_picking_others_too_does_not(where):
    assert len(hookline.select(nn.TransformerEncoderLayer(8, 2, 16), where)) > 0


def test_of_an_attention_whose_forward_is_its_own_nothing_is_said():
    class Own(nn.MultiheadAttention):
        def forward(self, x):
            return self.out_proj(x)

    model = Own(8, 2)
    with hookline.watch(model, "out_proj") as run:
        model(torch.ones(1, 8))
    assert len(run) == 1

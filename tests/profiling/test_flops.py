"""FLOPs of fused operations: those of the products that they stand for; of anything else, those of PyTorch's counter."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

import hookline
from hookline.profiling.flops import counting, should_have_flops


def counted(program, counter):
    """FLOPs of the forward, and of the backward."""
    with counter as found:
        flops = found.get_total_flops
        output = program()
        output = output[0] if isinstance(output, tuple) else output
        forward = flops()
        if output.requires_grad:
            output.sum().backward()
        return forward, flops() - forward


def ours(program):
    return counted(program, counting())


def pytorchs(program):
    return counted(program, FlopCounterMode(display=False))


def heads(number, length, width=16):
    return torch.ones(2, number, length, width, requires_grad=True)


QUERY, KEY, SHORT = heads(4, 7), heads(4, 9), heads(2, 9)
MASK = torch.ones(7, 9)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((QUERY, KEY, KEY), {}),
        ((QUERY, QUERY, QUERY), {"is_causal": True}),
        ((QUERY, KEY, KEY), {"attn_mask": MASK}),
        ((QUERY, SHORT, SHORT), {"enable_gqa": True}),
    ],
    ids=["cross", "causal", "masked", "grouped"],
)
def test_fused_attention_has_the_flops_of_attention_that_is_not_fused(arguments, options):
    def attention():
        return scaled_dot_product_attention(*arguments, **options)

    with sdpa_kernel(SDPBackend.MATH):
        wanted = pytorchs(attention)
    assert ours(attention) == wanted
    assert min(wanted) > 0


X = torch.ones(5, 3, 8, requires_grad=True)
STATE = torch.ones(1, 3, 16, requires_grad=True)


def by_hand(cell, state):
    """A recurrent layer as a loop over its steps."""
    for x in X:
        state = cell(x, state)
    return state


@pytest.mark.parametrize(
    ("layer", "cell", "state"),
    [(nn.LSTM, nn.LSTMCell, (STATE, STATE)), (nn.GRU, nn.GRUCell, STATE), (nn.RNN, nn.RNNCell, STATE)],
    ids=["LSTM", "GRU", "RNN"],
)
def test_a_recurrent_layer_has_the_flops_of_its_cell_at_each_step(layer, cell, state):
    first = (STATE[0], STATE[0]) if isinstance(state, tuple) else STATE[0]
    wanted = pytorchs(lambda: by_hand(cell(8, 16), first))
    assert ours(lambda: layer(8, 16)(X, state)) == wanted
    assert wanted[0] == 5 * 2 * 3 * (8 + 16) * 16 * {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[layer]


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")  # from leaving oneDNN, whatever the machine
@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2},
        {"bidirectional": True, "num_layers": 2},
        {"batch_first": True},
        {"bias": False},
    ],
    ids=str,
)
def test_an_lstm_has_the_same_flops_fused_or_not(options):
    layer = nn.LSTM(8, 16, **options)
    number = layer.num_layers * (2 if layer.bidirectional else 1)
    state = torch.ones(number, 5 if layer.batch_first else 3, 16, requires_grad=True)
    with torch.backends.mkldnn.flags(enabled=False):
        wanted = pytorchs(lambda: layer(X, (state, state)))
    assert ours(lambda: layer(X, (state, state))) == wanted


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("layer", [nn.MultiheadAttention, nn.TransformerEncoderLayer])
def test_the_fast_path_of_a_transformer_has_the_flops_of_the_slow_one(layer, batch_first):
    model = layer(16, 2, batch_first=batch_first).eval()
    x = torch.ones(2, 5, 16)
    arguments = (x, x, x) if layer is nn.MultiheadAttention else (x,)
    with torch.no_grad():
        fast = ours(lambda: model(*arguments))
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            slow = ours(lambda: model(*arguments))
            with sdpa_kernel(SDPBackend.MATH):
                wanted = pytorchs(lambda: model(*arguments))
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
    assert fast == slow == wanted


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 2, 3)), torch.ones(2, 3, 8, 8)),
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Bilinear(4, 4, 2)), None),
    ],
    ids=["convolutions", "linear maps"],
)
def test_a_model_without_fused_operations_has_what_pytorchs_counter_says(model, x):
    def program():
        return model(x) if x is not None else model[2](model[1](model[0](torch.ones(3, 4))), torch.ones(3, 4))

    assert ours(program) == pytorchs(program)


def test_profile_counts_flops_of_lstm_and_attention():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.attention = nn.LSTM(8, 16), nn.MultiheadAttention(16, 2)

        def forward(self, x):
            x, _ = self.lstm(x)
            return self.attention(x, x, x, need_weights=False)[0]

    found = hookline.profile(Reader(), X, repeat=1)
    assert found["lstm"].flops == 5 * 2 * 3 * (8 + 16) * 16 * 4
    assert found["lstm"].backward_flops == 2 * found["lstm"].flops
    products = 2 * 2 * 3 * 5 * 5 * 16
    assert found["attention"].flops == products + 2 * 5 * 3 * 4 * 16 * 16
    assert found["attention"].backward_flops == 2 * found["attention"].flops


CONVOLUTIONS = [
    (nn.Conv2d(8, 8, 3), (2, 8, 9, 9)),
    (nn.Conv2d(8, 16, 3, groups=4, stride=2, padding=1), (2, 8, 9, 9)),
    (nn.Conv2d(32, 32, 3, groups=32, dilation=2), (2, 32, 9, 9)),
    (nn.Conv1d(6, 9, 5, groups=3), (2, 6, 20)),
    (nn.Conv3d(4, 4, 3, groups=4), (2, 4, 5, 5, 5)),
    (nn.ConvTranspose2d(8, 8, 3), (2, 8, 9, 9)),
    (nn.ConvTranspose2d(8, 16, 3, groups=4, stride=2), (2, 8, 9, 9)),
    (nn.ConvTranspose1d(8, 8, 3, groups=8), (2, 8, 9)),
    (nn.Conv2d(8, 8, 3, groups=2), (8, 9, 9)),
]


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS, ids=str)
def test_the_backward_of_a_convolution_has_twice_the_flops_of_the_forward(layer, shape):
    x = torch.ones(shape, requires_grad=True)
    forward, backward = ours(lambda: layer(x))

    assert forward == pytorchs(lambda: layer(x))[0]
    assert backward == 2 * forward


@pytest.mark.parametrize("of", ["input", "weight"])
def test_one_gradient_of_a_convolution_has_the_flops_of_the_forward(of):
    layer = nn.Conv2d(8, 8, 3, groups=8).requires_grad_(of == "weight")
    forward, backward = ours(lambda: layer(torch.ones(2, 8, 9, 9, requires_grad=of == "input")))

    assert backward == forward > 0


aten = torch.ops.aten


@pytest.mark.parametrize(
    "operation", [aten._fft_r2c, aten.linalg_qr, aten.mv, aten.dot, aten._cudnn_rnn, aten._int_mm, aten._trilinear]
)
def test_an_operation_of_products_should_have_flops(operation):
    assert should_have_flops(operation)


@pytest.mark.parametrize(
    "operation",
    [aten.add, aten.relu, aten.digamma, aten.upsample_bilinear2d, aten._cudnn_rnn_flatten_weight, aten._to_copy]
    + [aten._convert_indices_from_coo_to_csr, aten.native_layer_norm, aten._fused_sdp_choice, aten.embedding],
)
def test_an_operation_of_elements_has_no_flops(operation):
    assert not should_have_flops(operation)


def test_an_operation_that_is_not_pytorchs_should_have_flops():
    assert should_have_flops(torch.ops.quantized.linear)

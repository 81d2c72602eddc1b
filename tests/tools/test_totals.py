"""Tests of totals: what they come to next to numpy, how they merge, what is refused."""

import json
import tracemalloc

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import hookline
from hookline import ArgumentError, CaptureError, RecordError, StoreError
from hookline.capturing.totals_document import to_document
from hookline.testing import assert_unhooked


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 6)
        self.mix = nn.Linear(6, 6)
        self.pool = nn.Linear(6, 2)

    def forward(self, input_ids, attention_mask=None):
        hidden = torch.tanh(self.mix(self.embed(input_ids)))
        return self.pool(hidden.mean(1))


TEXTS = [[1 + (7 * number + place) % 49 for place in range(number % 5)] for number in range(23)]
MASK = hookline.rows(mask="attention_mask")
X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
WIDE = X.double().exp() ** 5 * X.sign()  # values of many sizes, whose sums float64 must round
ALL = {"covariance": True, "quantiles": True, "top": 4}


def padded(texts):
    longest = max(1, *map(len, texts))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


@pytest.fixture
def tagger():
    torch.manual_seed(0)
    return Tagger().eval()


@pytest.fixture
def line():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU()).eval()


def totals(model, data, where, **options):
    return hookline.totals(model, data, where, **{"progress": False, **options})


def bits(found):
    """All that a result holds, bit for bit."""
    document, tensors = to_document(found)
    return json.dumps(document), {
        name: tensor.contiguous().view(torch.uint8).numpy().tobytes() for name, tensor in tensors.items()
    }


def rows_by_hook(model, module, batches, pick=lambda output, given: output):
    """The rows that a plain hook sees, in float64."""
    found = []
    handle = module.register_forward_hook(lambda module, args, output: found.append(output))
    with torch.no_grad():
        for given in batches:
            model(**given) if isinstance(given, dict) else model(given)
            rows = pick(found[-1], given)
            found[-1] = rows.reshape(-1, rows.shape[-1])
    handle.remove()
    return torch.cat(found).double().numpy()


def expect_totals(total, rows):
    """All figures of a Total next to numpy's of the same rows."""
    assert total.rows == len(rows)
    numpy.testing.assert_allclose(total.mean, rows.mean(0), rtol=1e-12, atol=1e-14)
    numpy.testing.assert_allclose(total.std, rows.std(0), rtol=1e-9, atol=1e-12)
    numpy.testing.assert_array_equal(total.min, rows.min(0))
    numpy.testing.assert_array_equal(total.max, rows.max(0))
    numpy.testing.assert_array_equal(total.zeros, (rows == 0).mean(0))
    numpy.testing.assert_allclose(total.covariance, numpy.cov(rows.T, bias=True), rtol=1e-8, atol=1e-12)
    for share in (0, 0.01, 0.5, 0.77, 1):
        expected = numpy.quantile(rows, share, method="inverted_cdf")
        assert abs(total.quantile(share) - expected) <= abs(expected) * 2**-8
    order = numpy.lexsort((numpy.arange(len(rows))[:, None] + 0 * rows, -rows), axis=0)[: len(total.top.values)]
    numpy.testing.assert_array_equal(total.top.values, numpy.take_along_axis(rows, order, 0))


# What they come to


def test_without_rows_an_example_is_one_row(line):
    found = totals(line, X, ["0", "1"], batch=7, **ALL)

    for place in ("0", "1"):
        expect_totals(found[place], rows_by_hook(line, line[int(place)], X.split(7)))
    assert (found.examples, found["1"].examples, found["1"].shape, found["1"].dtype) == (60, 60, (4,), "float32")
    assert found.finished
    assert found.exact


def test_rows_are_those_of_the_mask(tagger):
    found = totals(tagger, TEXTS, "mix", call=padded, rows=MASK, batch=4, **ALL)
    batches = [padded(TEXTS[start : start + 4]) for start in range(0, 23, 4)]

    expect_totals(
        found["mix"], rows_by_hook(tagger, tagger.mix, batches, lambda out, given: out[given["attention_mask"] == 1])
    )
    assert found["mix"].rows == sum(map(len, TEXTS))


def test_top_names_example_and_position(tagger):
    found = totals(tagger, TEXTS, "embed", call=padded, rows=MASK, batch=4, top=5)
    values, examples, positions = found["embed"].top

    for place in range(5):
        for feature in range(6):
            token = TEXTS[examples[place, feature]][positions[place, feature]]
            assert values[place, feature] == tagger.embed.weight[token, feature]


@pytest.mark.parametrize("batch", [2, 6])
@pytest.mark.parametrize("count", [1, 3])
def test_equal_values_are_in_order_of_example_and_position(batch, count):
    rows = hookline.rows(positions=[3, 1])
    found = totals(nn.Sequential(nn.Identity()), torch.ones(6, 4, 2), "0", rows=rows, batch=batch, top=count)["0"].top

    assert found.examples.tolist() == [[0, 0], [0, 0], [1, 1]][:count]
    assert found.positions.tolist() == [[1, 1], [3, 3], [1, 1]][:count]


def test_padding_is_never_counted(tagger):
    tagger.embed.weight.data[0] = 1e6
    found = totals(tagger, TEXTS, "embed", call=padded, rows=MASK, quantiles=True, top=1)

    assert float(found["embed"].max.max()) < 1e3
    assert float(found["embed"].top.values.max()) < 1e3


def test_tiny_bert_with_padding():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    model = transformers.BertModel(config).eval()
    texts = [text or [1] for text in TEXTS]
    found = totals(model, texts, "encoder.layer.*", call=padded, rows=MASK, batch=4, **ALL)
    batches = [padded(texts[start : start + 4]) for start in range(0, 23, 4)]

    own = lambda output, given: tensor_of(output)[given["attention_mask"] == 1]
    for number in range(2):
        rows = rows_by_hook(model, model.encoder.layer[number], batches, own)
        expect_totals(found[f"encoder.layer.{number}"], rows)


def tensor_of(output):
    return output[0] if isinstance(output, tuple) else output


def test_channels_of_images_are_features():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)).eval()
    images = torch.randn(10, 3, 8, 8)
    pixels = lambda tensor: tensor.flatten(2).mT
    found = totals(model, images, "1", keep=pixels, rows=hookline.rows(), batch=4, **ALL)
    whole = totals(model, images, "1", batch=4)

    expect_totals(found["1"], model[:2](images).detach().flatten(2).mT.reshape(-1, 5).double().numpy())
    assert whole["1"].shape == (5, 6, 6)
    assert whole["1"].mean.shape == (180,)


def test_generation_steps_are_joined():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=30, n_positions=32, n_embd=8, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config).eval()
    texts = [text for text in TEXTS if len(text) == 4]
    options = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    run = lambda model, inputs: model.generate(**inputs, **options)
    call = lambda batch: {"input_ids": torch.tensor(batch) % 30, "attention_mask": torch.ones(len(batch), 4).long()}
    asked = {"call": call, "run": run, "rows": hookline.rows(), "calls": "join", "batch": 2}
    found = totals(model, texts, "transformer.h.0.mlp", **asked, **ALL)
    seen = []
    handle = model.transformer.h[0].mlp.register_forward_hook(lambda module, args, output: seen.append(output))
    for start in range(0, len(texts), 2):
        run(model, call(texts[start : start + 2]))
    handle.remove()

    expect_totals(
        found["transformer.h.0.mlp"],
        torch.cat([output.detach().reshape(-1, 8) for output in seen]).double().numpy(),
    )


def test_function_makes_several_points(line):
    found = totals(line, X, "1", keep=lambda tensor: {"all": tensor, "first": tensor[:, :1]}, batch=7)

    assert [point.path for point in found] == ["1/all", "1/first"]
    assert found["1/first"].type == "ReLU"
    assert torch.equal(found["1/first"].mean, found["1/all"].mean[:1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.bfloat16, torch.float16, torch.bool, torch.uint8])
def test_every_dtype_is_added_up(dtype):
    data = (torch.arange(60).reshape(20, 3) % 2 if dtype == torch.bool else torch.arange(60).reshape(20, 3)).to(dtype)
    found = totals(nn.Sequential(nn.Identity()), data, "0", batch=6, **ALL)

    expect_totals(found["0"], data.double().numpy())


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_float8_is_added_up(name):
    data = torch.arange(1, 13).reshape(4, 3).float()
    found = totals(nn.Sequential(nn.Identity()), data, "0", keep=lambda tensor: tensor.to(getattr(torch, name)), **ALL)

    expect_totals(found["0"], data.to(getattr(torch, name)).double().numpy())


def test_float64_beyond_float32_is_added_up():
    data = torch.tensor([[1e120], [3e120], [-1e120]], dtype=torch.float64)
    found = totals(nn.Sequential(nn.Identity()), data, "0", quantiles=True)["0"]

    assert found.mean.item() == pytest.approx(1e120)
    assert found.std.item() == pytest.approx(data.std(correction=0).item())
    assert found.quantile(0.5) == float("inf")
    assert found.quantile(1) == 3e120


def test_covariance_next_to_a_large_mean_keeps_its_digits():
    data = (torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) + 4000.0).float()
    found = totals(nn.Sequential(nn.Identity()), data, "0", covariance=True)["0"]
    expected = numpy.cov(data.double().numpy().T, bias=True)

    numpy.testing.assert_allclose(found.covariance, expected, rtol=1e-6, atol=1e-8)
    assert torch.equal(found.covariance, found.covariance.mT)
    assert torch.equal(found.covariance.diagonal().sqrt(), found.std)


def test_covariance_of_several_strips(line):
    data = torch.randn(40, 300, generator=torch.Generator().manual_seed(0))
    found = totals(nn.Sequential(nn.Identity()), data, "0", batch=16, **ALL)

    expect_totals(found["0"], data.double().numpy())


@pytest.mark.parametrize("value", [0.1, 1 / 3, 5.7, 12345.678])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_feature_has_no_variance(value, dtype):
    data = torch.full((5000, 3), value, dtype=dtype)
    data[:, 1] = torch.arange(5000)
    options = {"batch": 2500, "rows": hookline.rows(), "call": lambda batch: torch.stack(batch)[:, None]}
    plain, full = (totals(nn.Identity(), data, "", covariance=flag, **options)[""] for flag in (False, True))
    flat = totals(nn.Identity(), data[:, :1], "", **options)[""]

    assert plain.std.tolist() == full.std.tolist() == [0, full.std[1], 0]
    assert full.covariance[0].tolist() == full.covariance[:, 2].tolist() == [0, 0, 0]
    assert full.correlation.isnan().sum() == 8
    assert flat.figures()["std"] == 0


def test_correlation_is_numpys_and_nan_for_a_constant_feature():
    data = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    data[:, 1] = 2.0
    found = totals(nn.Sequential(nn.Identity()), data, "0", covariance=True)["0"].correlation
    expected = numpy.corrcoef(data[:, [0, 2]].double().numpy().T)

    numpy.testing.assert_allclose(found[[0, 2]][:, [0, 2]], expected, rtol=1e-9)
    assert bool(found[1].isnan().all())


def test_figures_are_those_of_all_values(line):
    found = totals(line, X, "1", batch=7)["1"].figures()
    values = line(X).detach().double().numpy()

    assert found["mean"] == pytest.approx(values.mean(), rel=1e-12)
    assert found["std"] == pytest.approx(values.std(), rel=1e-9)
    assert (found["min"], found["max"], found["zeros"]) == (values.min(), values.max(), (values == 0).mean())


def test_ids_are_those_of_the_top(line):
    data = [{"name": f"n{number}", "x": row} for number, row in enumerate(X)]
    found = totals(line, data, "0", call=lambda batch: torch.stack(batch["x"]), id="name", batch=7, top=2)

    assert found.ids == {number: f"n{number}" for number in sorted(found["0"].top.numbers)}
    assert totals(line, X, "0", top=1).ids == {
        number: number for number in totals(line, X, "0", top=1)["0"].top.numbers
    }


def test_ids_of_many_examples_are_dropped(line, monkeypatch):
    monkeypatch.setattr("hookline.capturing.adding.KEPT", 8)
    data = [{"name": f"n{number}", "x": row} for number, row in enumerate(X)]
    found = totals(line, data, "0", call=lambda batch: torch.stack(batch["x"]), id="name", batch=2, top=1)

    assert found.ids == {number: f"n{number}" for number in sorted(found["0"].top.numbers)}


def test_gradient_is_that_of_the_loss(line):
    found = totals(line, X, "0", keep="gradient", loss=lambda output: output.square().sum(), batch=60)
    hidden = line[0](X).detach().requires_grad_()
    (expected,) = torch.autograd.grad(line[1](hidden).square().sum(), hidden)

    numpy.testing.assert_allclose(found["0"].mean, expected.double().mean(0), rtol=1e-6)


# Merging


def test_random_numbers_are_those_of_the_batch():
    model = nn.Sequential(nn.Identity())
    call = lambda batch: torch.stack(batch) + torch.rand(len(batch), 3)
    before = torch.get_rng_state()
    asked = {"call": call, "batch": 4, **ALL}
    whole = totals(model, X, "0", **asked)
    parts = [totals(model, X, "0", part=(number, 3), **asked) for number in (1, 2, 0)]

    assert bits(sum(parts)) == bits(whole)
    assert float((whole["0"].mean - X.double().mean(0)).min()) > 0.3
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(CaptureError, match="another seed="):
        parts[0] + totals(model, X, "0", seed=1, part=(2, 3), **asked)


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(5)), st.randoms(use_true_random=False))
def test_parts_merge_to_the_bits_of_the_whole_in_any_tree(order, chance):
    model = nn.Sequential(nn.Identity(), nn.ReLU())
    asked = {"batch": 4, **ALL}
    whole = totals(model, WIDE, ["0", "1"], **asked)
    parts = [totals(model, WIDE, ["0", "1"], part=(number, 5), **asked) for number in order]
    while len(parts) > 1:
        one, other = (parts.pop(chance.randrange(len(parts))) for _ in range(2))
        parts.append(one + other)

    assert whole.exact
    assert bits(parts[0]) == bits(whole)


def test_merging_leaves_the_parts_as_they_were(line):
    one, other = (totals(line, X, "0", batch=4, part=(number, 2), **ALL) for number in range(2))
    before = bits(one), bits(other)
    one + other

    assert (bits(one), bits(other)) == before


def test_sum_adds_all_parts(line):
    parts = [totals(line, X, "0", batch=4, part=(number, 3), **ALL) for number in range(3)]

    assert bits(sum(parts)) == bits(totals(line, X, "0", batch=4, **ALL))


def test_saved_parts_merge_to_the_same_bits(line, tmp_path):
    for number in range(3):
        totals(line, X, "0", batch=4, part=(number, 3), **ALL).save(tmp_path / str(number))
    found = sum(hookline.load(tmp_path / str(number)) for number in (2, 0, 1))

    assert bits(found) == bits(totals(line, X, "0", batch=4, **ALL))


def test_skipped_examples_merge(line):
    data = X.clone()
    data[[5, 33]] = float("nan")
    asked = {"batch": 4, "errors": "skip", **ALL}
    whole = totals(line, data, "0", **asked)
    parts = [totals(line, data, "0", part=(number, 4), **asked) for number in range(4)]

    assert sorted(whole.skipped) == [5, 33]
    assert whole.examples == whole["0"].rows == 58
    assert bits(sum(parts)) == bits(whole)


def test_more_parts_than_batches_merge(line):
    parts = [totals(line, X, "0", batch=50, part=(number, 5), **ALL) for number in range(5)]

    assert not parts[4]
    assert bits(sum(parts[::-1])) == bits(totals(line, X, "0", batch=50, **ALL))


def test_part_says_what_is_missing(line):
    found = totals(line, X, "0", batch=4, part=(0, 4))

    assert (found.missing, found.finished, found.examples) == (11, False, 16)
    assert found.summary == "Sequential: 1 point, 16 examples, 16 rows, 11 of 15 batches missing"
    assert "missing: 11 batches of the data" in str(found)


def test_same_examples_twice_are_an_error(line):
    whole, part = totals(line, X, "0", batch=4), totals(line, X, "0", batch=4, part=(1, 4))

    with pytest.raises(
        CaptureError, match="both totals have examples 4 to 7 of the same data, which would count twice"
    ):
        whole + part
    with pytest.raises(CaptureError, match="both totals have examples 0 to 3"):
        whole + whole


def test_totals_of_other_data_merge(line):
    one, other = (
        totals(line, X[:20], "0", batch=4, covariance=True),
        totals(line, X[20:], "0", batch=4, covariance=True),
    )
    whole = totals(line, X, "0", batch=4, covariance=True)
    found = one + other

    assert found.examples == 60
    assert torch.equal(found["0"].mean, whole["0"].mean)
    assert torch.equal(found["0"].covariance, whole["0"].covariance)
    assert bits(other + one) == bits(found)


def test_top_of_two_data_sets_is_an_error(line):
    with pytest.raises(CaptureError, match="top= numbers the examples of each from 0"):
        totals(line, X[:20], "0", top=2) + totals(line, X[20:], "0", top=2)


def test_skipped_of_two_data_sets_are_with_their_data(line):
    data = X.clone()
    data[[0, 30]] = float("nan")
    found = totals(line, data[:30], "0", errors="skip") + totals(line, data[30:], "0", errors="skip")

    with pytest.raises(CaptureError, match="see covers"):
        _ = found.skipped
    assert [[*cover.skipped] for cover in found.covers] == [[0], [0]]
    assert "2 skipped" in found.summary


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"where": "1"}, "other modules"),
        ({"weights": True}, "other weights"),
        ({"batch": 5}, "another batch="),
        ({"keep": "input"}, "another keep="),
        ({"keep": lambda tensor: tensor + 1}, "another keep="),
        ({"rows": hookline.rows(), "keep": lambda tensor: tensor[:, None]}, "another keep="),
        ({"errors": "skip"}, "another errors="),
        ({"covariance": True}, "another covariance=: False, True"),
        ({"histogram": True}, "another quantiles=: False, True"),
        ({"top": 3}, "another top=: 0, 3"),
        ({"call": lambda batch: torch.stack(batch) + 1}, "another call="),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_totals_of_something_else_do_not_merge(line, changed, message):
    one = totals(line, X, "0", batch=4, part=(0, 2))
    options = {"where": "0", "batch": 4, "part": (1, 2), **changed}
    if options.pop("weights", False):
        line[0].weight.data[0, 0] += 1e-6
    other = totals(line, X, options.pop("where"), **options)
    with pytest.raises(CaptureError, match=message):
        one + other


def test_totals_of_other_models_do_not_merge(line):
    class Odd(nn.Sequential):
        pass

    one, other = totals(line, X, "0", batch=4, part=(0, 2)), totals(Odd(*line), X, "0", batch=4, part=(1, 2))
    with pytest.raises(CaptureError, match="other models: Sequential, Odd"):
        one + other


def test_totals_of_other_shapes_do_not_merge():
    model = nn.Sequential(nn.Identity())
    one, other = totals(model, torch.ones(4, 3), "0"), totals(model, torch.ones(4, 5), "0")
    with pytest.raises(CaptureError, match=r"rows of shape \[3\], float32, in one batch and \[5\], float32"):
        one + other


def test_totals_and_a_number_do_not_add(line):
    with pytest.raises(TypeError):
        totals(line, X, "0") + 1
    with pytest.raises(TypeError):
        1 + totals(line, X, "0")


def test_changed_tokenizer_shows_in_a_merge(tagger):
    def call(texts):
        given = padded(texts)
        given["input_ids"] = (given["input_ids"] + OFFSET["by"]) % 50
        return given

    parts = []
    for number in range(2):
        OFFSET["by"] = number
        parts.append(totals(tagger, TEXTS, "mix", call=call, rows=MASK, batch=4, part=(number, 2)))
    with pytest.raises(CaptureError, match="a changed tokenizer"):
        parts[0] + parts[1]


OFFSET = {"by": 0}


def test_sum_that_lost_something_says_so():
    data = torch.tensor([[1.0], [2.0**-60], [2.0**-120], [2.0**-180]], dtype=torch.float64)
    found = totals(nn.Sequential(nn.Identity()), data, "0", batch=1)

    assert not found.exact
    assert not found["0"].exact
    assert found.summary.endswith("sums rounded")
    assert "rounded, so that the last bits may depend on the order of the batches: 0" in str(found)


# What stays as it is


def test_model_and_generators_are_left_as_they_were(line):
    weights = {name: tensor.clone() for name, tensor in line.state_dict().items()}
    before = torch.get_rng_state()
    totals(line, X, ["0", "1"], **ALL)

    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(tensor, line.state_dict()[name]) for name, tensor in weights.items())
    assert all(parameter.grad is None for parameter in line.parameters())
    assert_unhooked(line, torch_hooks=True)


def test_interrupt_leaves_no_hook(line):
    seen = []

    def call(batch):
        seen.append(batch)
        if len(seen) > 3:
            raise KeyboardInterrupt
        return torch.stack(batch)

    with pytest.raises(KeyboardInterrupt):
        totals(line, X, "0", call=call, batch=4)

    assert_unhooked(line, torch_hooks=True)


def test_output_that_is_changed_in_place_is_taken_before():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True)).eval()
    found = totals(model, X, "0")

    assert float(found["0"].min.min()) < 0


def test_autocast_does_not_round_the_sums(line):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = totals(line, X, "0", keep=lambda tensor: tensor.float(), batch=4, covariance=True)["0"]
        rows = rows_by_hook(line, line[0], X.split(4))

    numpy.testing.assert_allclose(found.covariance, numpy.cov(rows.T, bias=True), rtol=1e-9, atol=1e-12)


def test_totals_in_inference_mode_are_read_outside_of_it(line):
    plain = [totals(line, X, "0", batch=4, part=(number, 2), **ALL) for number in range(2)]
    with torch.inference_mode():
        found = [totals(line, X, "0", batch=4, part=(number, 2), **ALL) for number in range(2)]

    assert bits(found[0] + found[1]) == bits(plain[0] + plain[1])
    assert torch.equal(found[0]["0"].covariance, plain[0]["0"].covariance)
    assert torch.equal(found[0]["0"].correlation, plain[0]["0"].correlation)


def test_deterministic_algorithms_are_enough(line):
    torch.use_deterministic_algorithms(True)
    try:
        found = totals(line, X, "0", batch=4, **ALL)
    finally:
        torch.use_deterministic_algorithms(False)

    assert bits(found) == bits(totals(line, X, "0", batch=4, **ALL))


def test_edited_model_is_added_up_as_edited_and_does_not_merge(line):
    with hookline.edit(line, "0", output=hookline.edits.zero()):
        edited = totals(line, X, "1", batch=4, part=(0, 2))

    assert float(edited["1"].max.max()) == 0
    with pytest.raises(CaptureError, match="other hooks or edits on the model"):
        edited + totals(line, X, "1", batch=4, part=(1, 2))


def test_memory_does_not_grow_with_the_batches(line, monkeypatch):
    monkeypatch.setattr("hookline.capturing.adding.KEPT", 64)

    def peak(count):
        data = Repeated(count)
        tracemalloc.start()
        found = totals(line, data, ["0", "1"], batch=2, id=lambda example: f"n{float(example[0])}", **ALL)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        own = [tensor for point in found for tensor in (*point.sums.terms, *point.squares.terms, point.sketch.counts)]
        return used, sum(tensor.nbytes for tensor in (*own, *(point.largest.values for point in found)))

    peak(300)
    (few, size), (many, later) = peak(300), peak(1200)
    assert later == size
    assert many < 1.5 * few


class Repeated:
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        return X[number % len(X)]


# Data sets


class Stream(IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return iter([{"name": str(number), "x": X[number]} for number in range(self.count)])


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16])
def test_stream_is_added_up_to_its_end(line, count):
    options = {"call": lambda batch: torch.stack(batch["x"]), "id": "name", "batch": 4, **ALL}
    found = totals(line, Stream(count), "0", **options)
    parts = [totals(line, Stream(count), "0", part=(number, 3), **options) for number in range(3)]

    assert (found.examples, found.finished) == (count, True)
    torch.testing.assert_close(found["0"].mean.float(), line[0](X[:count]).mean(0))
    assert bits(sum(parts)) == bits(found)


def test_loader_with_a_fixed_order(line):
    found = totals(line, DataLoader(TensorDataset(X), batch_size=7), "0", call=lambda batch: batch[0], **ALL)

    assert torch.equal(found["0"].mean, totals(line, X, "0", batch=7, **ALL)["0"].mean)


def test_loader_that_shuffles_is_refused(line):
    with pytest.raises(ArgumentError, match="this DataLoader shuffles"):
        totals(line, DataLoader(TensorDataset(X), shuffle=True), "0")


# What goes wrong


def spoiled(place, value):
    data = X.clone()
    data[place, 0] = value
    return data


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), "NaN"),
        (float("inf"), r"an infinite value \(inf\)"),
        (-float("inf"), r"an infinite value \(-inf\)"),
    ],
)
def test_value_that_is_not_finite_is_an_error_that_names_the_example(value, told):
    model = nn.Sequential(nn.Identity())
    with pytest.raises(CaptureError, match=f"example 13 has {told} at '0'; errors='skip' leaves such examples out"):
        totals(model, spoiled(13, value), "0", batch=4)


def test_value_whose_square_overflows_is_an_error():
    with pytest.raises(CaptureError, match=r"example 2 has -1e\+200, whose square float64 cannot add up, at '0'"):
        totals(nn.Sequential(nn.Identity()), torch.tensor([[1.0], [2.0], [-1e200]], dtype=torch.float64), "0")


def test_bad_example_is_skipped_where_asked(line):
    found = totals(line, spoiled(13, float("inf")), "0", batch=4, errors="skip", **ALL)
    good = X[[number for number in range(60) if number != 13]]

    assert list(found.skipped) == [13]
    assert "skipped: 1 example: 13 (CaptureError: example 13 has an infinite value" in str(found)
    numpy.testing.assert_allclose(found["0"].mean, line[0](good).detach().double().mean(0), rtol=1e-6)
    assert found.examples == found["0"].examples == 59


def test_all_skipped_is_empty(line):
    found = totals(line, spoiled(slice(None), float("nan")), "0", errors="skip")

    assert not found
    assert (len(found.skipped), found.examples, found.finished) == (60, 0, True)


def test_error_of_the_model_tells_the_examples(line):
    with pytest.raises(RuntimeError) as caught:
        totals(line, torch.ones(4, 2), "0")

    assert any("in examples 0 to 3 of the data set" in note for note in caught.value.__notes__)
    assert_unhooked(line)


def test_padding_without_rows_is_an_error(tagger):
    with pytest.raises(CaptureError, match=r"rows=hookline.rows\(mask=...\) makes each position a row"):
        totals(tagger, TEXTS, "mix", call=padded, batch=2)


def test_batches_of_different_points_are_an_error():
    keep = lambda tensor: {"a": tensor} if tensor[0, 0] < 3 else {"a": tensor, "b": tensor}
    with pytest.raises(CaptureError, match="every batch must give the same"):
        totals(nn.Sequential(nn.Identity()), torch.arange(6.0).reshape(6, 1), "0", keep=keep, batch=1)


def test_module_in_training_mode_is_refused():
    with pytest.raises(ArgumentError, match=r"'1' is in training mode.*call model.eval\(\)"):
        totals(nn.Sequential(nn.Linear(3, 3), nn.Dropout()), X, "0")


def test_rows_without_values_are_an_error():
    with pytest.raises(CaptureError, match=r"'0' gives rows of shape \[0\], which have no values"):
        totals(nn.Sequential(nn.Identity()), torch.ones(4, 0), "0")


def test_numbers_of_unsigned_dtypes_are_added_up():
    data = torch.tensor([[1, 60_000], [2, 3], [65_535, 4]]).to(torch.uint16)
    found = totals(nn.Sequential(nn.Identity()), data, "0", **ALL)["0"]

    assert (found.max.tolist(), found.min.tolist()) == ([65_535, 60_000], [1, 3])
    assert found.top.values[0].tolist() == [65_535, 60_000]


def test_covariance_of_too_many_features_says_what_to_do():
    with pytest.raises(CaptureError, match=r"rows of 40,000 features, whose covariance has 13 GB; rows= makes"):
        totals(nn.Sequential(nn.Identity()), torch.ones(2, 40_000), "0", covariance=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be a whole number from 1, not 0"),
        ({"keep": "outputs"}, "keep must be 'output', 'input', 'gradient' or a function, not 'outputs'"),
        ({"calls": "join"}, "calls='join' needs rows="),
        ({"errors": "ignore"}, "errors must be"),
        ({"rows": "mask"}, r"rows= takes hookline.rows\(...\)"),
        ({"top": 0}, "top must be a whole number from 1, not 0"),
        ({"top": True}, "top must be a whole number from 1, not True"),
        ({"covariance": 1}, "covariance must be True or False, not 1"),
        ({"part": (2, 2)}, "part must be"),
        ({"seed": 0.5}, "seed must be a whole number, not 0.5"),
        ({"part": 1}, "part must be"),
        ({"part": (0, True)}, "part must be"),
    ],
)
def test_wrong_argument_is_an_error(line, options, message):
    with pytest.raises(ArgumentError, match=message):
        totals(line, X, "0", **options)


def test_several_processes_without_a_group_are_an_error(line, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ArgumentError, match=r"before torch.distributed.init_process_group\(\)"):
        totals(line, X, "0")

    assert totals(line, X, "0", part=(0, 2))


def test_what_was_not_measured_is_an_error(line):
    found = totals(line, X, "0")["0"]
    for name, call in {
        "covariance=True": lambda: found.covariance,
        "quantiles=True": lambda: found.quantile(0.5),
        "histogram=True": lambda: found.histogram(),
        "top=32": lambda: found.top,
    }.items():
        with pytest.raises(RecordError, match=f"call hookline.totals with {name}"):
            call()


def test_point_without_rows_has_no_figures(tagger):
    found = totals(tagger, [[], []], "mix", call=padded, rows=MASK, **ALL)["mix"]

    assert (found.rows, found.examples) == (0, 2)
    assert bool(found.mean.isnan().all())
    assert bool(found.covariance.isnan().all())
    assert found.top.values.shape == (0, 6)
    with pytest.raises(RecordError, match="has no rows, and so no quantile"):
        found.quantile(0.5)


@pytest.mark.parametrize(("share", "bins"), [(-0.1, 0), (1.1, -1), (float("nan"), 2.5)])
def test_wrong_share_or_bins_is_an_error(line, share, bins):
    found = totals(line, X, "0", quantiles=True)["0"]
    with pytest.raises(ArgumentError, match="quantile takes a number from 0 to 1"):
        found.quantile(share)
    with pytest.raises(ArgumentError, match="bins must be a whole number from 1"):
        found.histogram(bins)


# On disk


def test_loaded_totals_are_the_same_in_each_bit(line, tmp_path):
    found = totals(line, X, ["0", "1"], batch=7, **ALL)
    found.save(tmp_path / "totals")

    assert bits(hookline.load(tmp_path / "totals")) == bits(found)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["points", 0, "rows"], -1, r"points\[0\].rows"),
        (["points", 0, "rows"], 7, "counts that are not those of its values"),
        (["points", 0, "shape"], [5], "that does not fit"),
        (["points", 0, "dtype"], "float31", r"points\[0\].dtype"),
        (["points", 0, "mean"], "much", r"points\[0\].mean"),
        (["points", 0, "more"], 1, "unknown member"),
        (["measures", "top"], 3, "that does not fit"),
        (["covers", 0, "parts"], [[3, 2]], r"covers\[0\].parts\[0\]: expected a first batch below the step"),
        (["covers", 0, "batch"], 0, r"covers\[0\].batch"),
        (["ids"], [[0, None]], r"ids\[0\]\[1\]: expected text or a whole number"),
        (["signature"], {}, "signature.rows"),
    ],
)
def test_damaged_document_is_an_error_that_names_the_member(line, tmp_path, path, value, message):
    totals(line, X, "0", **ALL).save(tmp_path)
    document = json.loads((tmp_path / "totals.json").read_text())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "totals.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match=message):
        hookline.load(tmp_path)


def test_missing_tensors_are_an_error(line, tmp_path):
    totals(line, X, "0", **ALL).save(tmp_path)
    (tmp_path / "tensors.safetensors").unlink()
    with pytest.raises(StoreError, match=r"has no tensor 0\.sums in tensors\.safetensors"):
        hookline.load(tmp_path)


def test_page_shows_how_values_are_distributed(line, tmp_path):
    page = totals(line, spoiled(3, float("nan")), "0", errors="skip", **ALL).page(tmp_path / "page.html").read_text()

    assert "<svg class='histogram'" in page
    assert "quantiles: 0.1%" in page
    assert "1 example skipped" in page

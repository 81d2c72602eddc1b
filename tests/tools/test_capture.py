"""Tests of capture: what is written, what is refused, what goes on where it stopped."""

import json
import os
import random

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler, TensorDataset

import hookline
from hookline import ArgumentError, CaptureError, StoreError


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
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh()).eval()


def captured(model, data, where, to, **options):
    return hookline.capture(model, data, where, to=to, progress=False, **options)


X = torch.arange(60.0).reshape(20, 3) / 60


# What is written


def test_rows_are_those_of_the_mask(tagger, tmp_path):
    acts = captured(tagger, TEXTS, "mix", tmp_path, call=padded, rows=hookline.rows(mask="attention_mask"), batch=4)

    assert [len(acts["mix"][number]) for number in range(23)] == [len(text) for text in TEXTS]
    for number, text in enumerate(TEXTS):
        if text:
            expected = tagger.mix(tagger.embed(torch.tensor(text)))
            torch.testing.assert_close(acts["mix"][number], expected)


def test_rows_know_their_positions_and_tokens(tagger, tmp_path):
    acts = captured(tagger, TEXTS, "mix", tmp_path, call=padded, rows=hookline.rows(mask="attention_mask"), batch=4)

    assert acts["mix"].tokens(4).tolist() == TEXTS[4]
    assert acts["mix"].positions(4).tolist() == [0, 1, 2, 3]


def test_last_position_that_is_not_padding(tagger, tmp_path):
    texts = [text for text in TEXTS if text]
    rows = hookline.rows(mask="attention_mask", positions=-1)
    acts = captured(tagger, texts, "embed", tmp_path, call=padded, rows=rows)

    assert [acts["embed"].tokens(number).tolist() for number in range(len(texts))] == [[text[-1]] for text in texts]


def test_without_rows_an_example_is_as_it_was(line, tmp_path):
    acts = captured(line, X, ["0", "1"], tmp_path, batch=6)

    assert torch.equal(torch.stack([*acts["1"]]), torch.cat([line(part) for part in X.split(6)]))
    assert acts["0"].shape == (4,)


def test_rows_have_the_same_bits_however_the_work_is_cut(line, tmp_path):
    one = captured(line, X, "1", tmp_path / "one", batch=5, unit=5)
    other = captured(line, X, "1", tmp_path / "other", batch=5, unit=20)

    assert all(torch.equal(a, b) for a, b in zip(one["1"], other["1"], strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float64])
def test_dtype_on_disk_is_the_one_asked_for(line, tmp_path, dtype):
    acts = captured(line, X, "1", tmp_path, dtype=dtype)

    assert acts["1"].dtype == dtype
    assert torch.equal(acts["1"][3].float(), line(X)[3].to(dtype).float())


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.float8_e5m2, torch.bool], ids=str)
def test_rows_of_every_dtype_are_picked(tmp_path, dtype):
    data = torch.arange(24).reshape(4, 3, 2) % 3
    rows = hookline.rows(positions=[0, 2])
    acts = captured(nn.Sequential(nn.Identity()), data, "0", tmp_path, rows=rows, keep=lambda tensor: tensor.to(dtype))

    assert [own.tolist() for own in acts["0"]] == data[:, [0, 2]].to(dtype).tolist()


def test_input_is_captured_where_asked(line, tmp_path):
    assert torch.equal(captured(line, X, "0", tmp_path, keep="input")["0"][7], X[7])


def test_gradient_is_that_of_the_loss(line, tmp_path):
    acts = captured(line, X, "0", tmp_path, keep="gradient", loss=lambda output: output.square().sum())
    hidden = line[0](X).detach().requires_grad_()
    (expected,) = torch.autograd.grad(line[1](hidden).square().sum(), hidden)

    torch.testing.assert_close(torch.stack([*acts["0"]]), expected)
    assert all(parameter.grad is None for parameter in line.parameters())


def test_function_makes_several_points(line, tmp_path):
    acts = captured(line, X, "1", tmp_path, keep=lambda tensor: {"mean": tensor.mean(1), "first": tensor[:, :1]})

    assert [point.path for point in acts] == ["1/mean", "1/first"]
    assert acts["1/first"].shape == (1,)


def test_function_of_two_gets_the_call(line, tmp_path):
    acts = captured(line, X, "0", tmp_path, keep=lambda tensor, call: tensor @ call.module.weight)

    torch.testing.assert_close(acts["0"][2], (line[0](X) @ line[0].weight)[2])


def test_ids_are_those_of_the_examples(line, tmp_path):
    data = [{"name": f"n{number}", "x": row} for number, row in enumerate(X)]
    acts = captured(line, data, "0", tmp_path, call=lambda batch: torch.stack(batch["x"]), id="name", batch=3)

    assert acts.ids == [f"n{number}" for number in range(20)]


def test_watched_model_is_left_as_it_was(line, tmp_path):
    before = torch.get_rng_state()
    captured(line, X, "0", tmp_path)

    assert torch.equal(before, torch.get_rng_state())
    assert not any(module._forward_hooks for module in line.modules())


# Calls of one module in a batch


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(2, 2)

    def forward(self, x):
        return self.shared(self.shared(x))


def test_module_that_is_called_twice_is_an_error(tmp_path):
    with pytest.raises(CaptureError, match="'shared' was called 2 times in one batch; say which with calls='first'"):
        captured(Twice(), torch.ones(4, 2), "shared", tmp_path)


@pytest.mark.parametrize("which", ["first", "last"])
def test_one_of_several_calls(tmp_path, which):
    model = Twice()
    acts = captured(model, torch.ones(4, 2), "shared", tmp_path, calls=which)
    first = model.shared(torch.ones(4, 2))

    torch.testing.assert_close(acts["shared"][0], (first if which == "first" else model.shared(first))[0])


def test_joined_calls_follow_on_one_another(tmp_path):
    model = Twice()
    run = lambda model, inputs: model.shared(model(inputs)[:, :1])
    acts = captured(model, torch.ones(4, 3, 2), "shared", tmp_path, calls="join", rows=hookline.rows(), run=run)

    assert acts["shared"][0].shape == (7, 2)
    assert acts["shared"].positions(0).tolist() == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("names", [["notes.txt"], [".env", "train.py"], ["data/mine.csv"], [".gitignore"]])
def test_folder_that_holds_something_else_is_refused(line, tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    with pytest.raises(StoreError, match=rf"holds {names[0]} and no capture; give an empty or a new folder"):
        captured(line, X, "0", tmp_path)

    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {*names}


def test_files_of_others_in_a_capture_stay(line, tmp_path):
    captured(line, X, "0", tmp_path)
    others = [tmp_path / ".gitattributes", tmp_path / "data/mine.csv", tmp_path / "data/.keep", tmp_path / "README"]
    for path in others:
        path.write_text("mine")
    captured(line, X, "0", tmp_path)

    assert all(path.exists() for path in others)


def test_positions_in_any_order_have_their_own_values(tmp_path):
    model = nn.Sequential(nn.Identity())
    data = torch.arange(8.0).reshape(4, 2, 1)
    acts = captured(model, data, "0", tmp_path, rows=hookline.rows(positions=[1, 0]))

    assert [acts["0"][number].flatten().tolist() for number in range(4)] == [[1, 0], [3, 2], [5, 4], [7, 6]]


def test_joined_calls_of_one_length_use_the_mask(tmp_path):
    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.same = nn.Identity()

        def forward(self, x, mask):
            return self.same(self.same(x) + 100)

    data = [{"x": torch.tensor([[1.0], [2.0], [-99.0]]), "mask": torch.tensor([1, 1, 0])}]
    acts = captured(Doubled(), data, "same", tmp_path, calls="join", rows=hookline.rows(mask="mask"))

    assert acts["same"][0].flatten().tolist() == [1, 2, 101, 102]


def test_joined_calls_of_one_position_use_the_mask(tmp_path):
    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.same = nn.Identity()

        def forward(self, x, mask):
            return self.same(self.same(x) + 100)

    data = [{"x": torch.tensor([[float(number)]]), "mask": torch.tensor([number])} for number in (0, 1)]
    acts = captured(Doubled(), data, "same", tmp_path, calls="join", rows=hookline.rows(mask="mask"))

    assert [own.flatten().tolist() for own in acts["same"]] == [[], [1, 101]]


def questions_and_answers(model, batch):
    model(**padded([[1, 2], [3, 4, 5]]))
    model(**padded([[6, 7, 8], [9]]))


@pytest.mark.parametrize("rows", [{"mask": "attention_mask"}, {"where": lambda inputs: inputs["attention_mask"]}])
def test_each_call_of_the_model_has_its_own_mask(tagger, tmp_path, rows):
    options = {"call": list, "run": questions_and_answers, "rows": hookline.rows(**rows)}
    joined = captured(tagger, [0, 1], "embed", tmp_path / "joined", calls="join", **options)["embed"]
    last = captured(tagger, [0, 1], "embed", tmp_path / "last", calls="last", **options)["embed"]

    assert [joined.tokens(number).tolist() for number in (0, 1)] == [[1, 2, 6, 7, 8], [3, 4, 5, 9]]
    assert [last.tokens(number).tolist() for number in (0, 1)] == [[6, 7, 8], [9]]


def test_gradients_of_each_call_have_its_own_mask(tagger, tmp_path):
    def run(model, batch):
        return model(**padded([[1, 2], [3, 4, 5]])) + model(**padded([[6, 7, 8], [9]]))

    options = {"call": list, "run": run, "rows": hookline.rows(mask="attention_mask"), "loss": torch.sum}
    joined = captured(tagger, [0, 1], "mix", tmp_path, calls="join", keep="gradient", **options)["mix"]

    assert [joined.tokens(number).tolist() for number in (0, 1)] == [[1, 2, 6, 7, 8], [3, 4, 5, 9]]


def test_later_call_without_the_mask_is_an_error(tagger, tmp_path):
    def run(model, batch):
        model(**padded([[1, 2], [3, 4, 5]]))
        model(torch.ones(2, 3, dtype=torch.int64))

    options = {"call": list, "run": run, "rows": hookline.rows(mask="attention_mask")}
    with pytest.raises(CaptureError, match="received no argument 'attention_mask'"):
        captured(tagger, [0, 1], "embed", tmp_path, calls="join", **options)


@pytest.mark.parametrize("trained", [[], ["2"], ["0", "2"]], ids=str)
@pytest.mark.parametrize("inplace", [False, True])
def test_gradient_reaches_frozen_layers(tmp_path, trained, inplace):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=inplace), nn.Linear(4, 1)).eval()
    for name, module in model.named_children():
        module.requires_grad_(name in trained)

    def watched(batch):
        return torch.stack(batch).requires_grad_()

    acts = captured(model, X, "0", tmp_path, keep="gradient", call=watched, loss=lambda output: output.sum())
    hidden = model[0](X).detach().requires_grad_()
    (expected,) = torch.autograd.grad(model[2](torch.relu(hidden)).sum(), hidden)

    torch.testing.assert_close(torch.stack([*acts["0"]]), expected)


@pytest.mark.graph
@pytest.mark.parametrize("frozen", [False, True])
def test_gradient_in_a_compiled_model_is_right(tmp_path, frozen):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).eval().requires_grad_(not frozen)
    options = {"keep": "gradient", "loss": torch.sum, "call": lambda batch: torch.stack(batch).requires_grad_()}
    plain = captured(model, X, ["0", "1"], tmp_path / "plain", **options)
    compiled = captured(torch.compile(model, backend="aot_eager"), X, ["0", "1"], tmp_path / "compiled", **options)

    for mine, theirs in zip(plain, compiled, strict=True):
        assert mine.numpy().any()
        torch.testing.assert_close(torch.stack([*mine]), torch.stack([*theirs]))


def test_gradient_before_an_in_place_operation_is_right(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 1))
    acts = captured(model, X, "0", tmp_path, keep="gradient", loss=lambda output: output.sum())
    hidden = model[0](X).detach().requires_grad_()
    (expected,) = torch.autograd.grad(model[2](torch.relu(hidden)).sum(), hidden)

    torch.testing.assert_close(torch.stack([*acts["0"]]), expected)


def test_additive_mask_is_an_error(tagger, tmp_path):
    rows = hookline.rows(lambda inputs: (inputs["input_ids"] == 0) * -1e9)
    with pytest.raises(CaptureError, match="has negative numbers: it is added to scores"):
        captured(tagger, TEXTS, "mix", tmp_path, call=padded, rows=rows)


def test_interrupt_leaves_no_lease(line, tmp_path, monkeypatch):
    from hookline.capturing.work import Writer

    def interrupted(self, unit, lease):
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        captured(line, X, "0", tmp_path)
    monkeypatch.undo()

    assert os.listdir(tmp_path / "leases") == []
    assert captured(line, X, "0", tmp_path).finished


def test_lease_that_is_dropped_is_free(tmp_path):
    from hookline.capturing.folder import LocalFolder

    folder = LocalFolder(tmp_path)
    folder.create()
    assert folder.lease("000001") is not None  # and nobody holds it
    lease = folder.lease("000001")

    assert lease is not None
    lease.end()


class Failing:
    def __init__(self, bad):
        self.bad = bad

    def __len__(self):
        return 6

    def __getitem__(self, number):
        if number in self.bad:
            raise OSError(f"cannot read {number}")
        return torch.full((3,), float(number))


@pytest.mark.parametrize("bad", [{0}, {3}, {4, 5}])
def test_example_that_cannot_be_read_is_skipped(line, tmp_path, bad):
    acts = captured(line, Failing(bad), "0", tmp_path, batch=2, errors="skip")

    assert set(acts.skipped) == bad
    assert acts.finished
    for number in set(range(6)) - bad:
        torch.testing.assert_close(acts["0"][number], line[0](torch.full((3,), float(number))))


def test_wrong_argument_is_not_skipped(tmp_path):
    with pytest.raises(CaptureError, match="was called 2 times in one batch"):
        captured(Twice(), torch.ones(4, 2), "shared", tmp_path, errors="skip")


@pytest.mark.parametrize(
    "module", [nn.LSTM(3, 3, num_layers=2, dropout=0.5), nn.RReLU(), nn.InstanceNorm1d(3, track_running_stats=True)]
)
def test_module_that_draws_or_learns_in_training_is_refused(tmp_path, module):
    with pytest.raises(ArgumentError, match="is in training mode"):
        captured(nn.Sequential(module), X, "0", tmp_path)


def test_loader_over_a_stream_uses_its_collate(line, tmp_path):
    loader = DataLoader(Stream(6), batch_size=3, collate_fn=lambda rows: torch.stack([row["x"] for row in rows]) + 1)
    acts = captured(line, loader, "0", tmp_path, id="name")

    torch.testing.assert_close(acts["0"][5], line[0](X[5] + 1))


@pytest.mark.graph
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which dynamo reads
def test_compiled_model_is_captured_inside(tagger, tmp_path):
    options = {"call": padded, "rows": hookline.rows(mask="attention_mask"), "batch": 4}
    plain = captured(tagger, TEXTS, "mix", tmp_path / "plain", **options)
    compiled = captured(torch.compile(tagger, backend="eager"), TEXTS, "mix", tmp_path / "compiled", **options)

    assert all(torch.equal(one, other) for one, other in zip(plain["mix"], compiled["mix"], strict=True))


# Data sets


def test_loader_with_a_fixed_order(line, tmp_path):
    loader = DataLoader(TensorDataset(X), batch_size=7)
    acts = captured(line, loader, "0", tmp_path, call=lambda batch: batch[0])

    assert len(acts["0"]) == 20
    assert torch.equal(acts["0"][19], line[0](X[14:])[5])


def test_loader_that_shuffles_is_refused(line, tmp_path):
    with pytest.raises(ArgumentError, match="this DataLoader shuffles"):
        captured(line, DataLoader(TensorDataset(X), shuffle=True), "0", tmp_path)


class Stream(IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return iter([{"name": str(number), "x": X[number]} for number in range(self.count)])


@pytest.mark.parametrize("count", [1, 8, 15, 16])
def test_stream_is_captured_to_its_end(line, tmp_path, count):
    options = {"call": lambda batch: torch.stack(batch["x"]), "id": "name", "batch": 2, "unit": 8}
    for _ in range(2):
        acts = captured(line, Stream(count), "0", tmp_path, **options)

        assert acts.ids == [str(number) for number in range(count)]
        assert acts.finished
        torch.testing.assert_close(acts["0"][count - 1], line[0](X[count - 1]))


def test_stream_skips_an_example_with_nan(line, tmp_path):
    class Spoiled(Stream):
        def __iter__(self):
            return iter([{"name": str(number), "x": spoiled(5)[number]} for number in range(self.count)])

    options = {"call": lambda batch: torch.stack(batch["x"]), "id": "name", "batch": 2, "unit": 8}
    acts = captured(line, Spoiled(15), "0", tmp_path, errors="skip", **options)

    assert list(acts.skipped) == [5]
    assert acts.ids == [str(number) for number in range(15)]
    for number in set(range(15)) - {5}:
        torch.testing.assert_close(acts["0"][number], line[0](X[number]))


def test_stream_without_ids_is_refused(line, tmp_path):
    with pytest.raises(ArgumentError, match="a stream of examples needs id="):
        captured(line, Stream(4), "0", tmp_path)


def test_iterator_that_can_be_read_once_is_refused(line, tmp_path):
    with pytest.raises(hookline.ArgumentTypeError, match="can be read once"):
        captured(line, iter(X), "0", tmp_path, id="name")


def test_frame_is_to_be_given_as_records(line, tmp_path):
    pandas = pytest.importorskip("pandas")
    with pytest.raises(hookline.ArgumentTypeError, match=r"give data.to_dict\('records'\)"):
        captured(line, pandas.DataFrame({"x": [1.0]}), "0", tmp_path)


def test_number_is_no_data_set(line, tmp_path):
    with pytest.raises(hookline.ArgumentTypeError, match="data must have len and"):
        captured(line, 3, "0", tmp_path)


# Going on


def test_second_call_runs_nothing_again(line, tmp_path):
    captured(line, X, "0", tmp_path)
    with hookline.watch(line) as run:
        captured(line, X, "0", tmp_path)

    assert len(run) == 0


def test_unit_that_is_missing_is_done_again(line, tmp_path):
    acts = captured(line, X, "0", tmp_path, batch=2, unit=4)
    record = json.loads((tmp_path / "units/000002.json").read_text())
    (tmp_path / "units/000002.json").unlink()
    assert hookline.open(tmp_path).missing == [2]
    again = captured(line, X, "0", tmp_path, batch=2, unit=4)

    assert again.finished
    assert json.loads((tmp_path / "units/000002.json").read_text()) == record
    assert acts.files == again.files


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"where": "1"}, "other modules"),
        ({"weights": True}, "other weights"),
        ({"dtype": torch.bfloat16}, "another dtype="),
        ({"batch": 4}, "another batch="),
        ({"data": X[:-1]}, "another number of examples: 20 there, 19 now"),
        ({"data": X * 2}, "other data"),
        ({"call": lambda batch: torch.stack(batch) + 1}, "another call="),
        ({"rows": hookline.rows()}, "other rows="),
        ({"keep": "input"}, "another keep="),
        ({"id": lambda example: 1}, "other ids"),
        ({"errors": "skip"}, "another errors="),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_other_capture_in_the_folder_is_named_and_kept(line, tmp_path, changed, message):
    captured(line, X, "0", tmp_path)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    options = {"where": "0", "data": X, **changed}
    if options.pop("weights", False):
        line[0].weight.data[0, 0] += 1e-6
    with pytest.raises(CaptureError, match=message):
        captured(line, options.pop("data"), options.pop("where"), tmp_path, **options)

    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_edit_on_the_model_is_another_capture(line, tmp_path):
    captured(line, X, "1", tmp_path)
    with hookline.edit(line, "0", output=hookline.edits.zero()):
        with pytest.raises(CaptureError, match="other hooks or edits on the model"):
            captured(line, X, "1", tmp_path)


def test_changed_setting_of_a_module_is_another_capture(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.LeakyReLU(0.1))
    captured(model, X, "1", tmp_path)
    model[1].negative_slope = 0.9
    with pytest.raises(CaptureError, match="other settings of modules"):
        captured(model, X, "1", tmp_path)


class Scaled:
    def __init__(self, by):
        self.by = by

    def __call__(self, tensor):
        return tensor * self.by


def test_function_with_another_state_is_another_capture(line, tmp_path):
    captured(line, X, "1", tmp_path, keep=Scaled(2))
    captured(line, X, "1", tmp_path, keep=Scaled(2))
    with pytest.raises(CaptureError, match="another keep="):
        captured(line, X, "1", tmp_path, keep=Scaled(3))


def test_autocast_is_another_capture(line, tmp_path):
    captured(line, X, "1", tmp_path)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(CaptureError, match="another autocast"):
        captured(line, X, "1", tmp_path)


def test_changed_tokenizer_shows_in_the_inputs(tagger, tmp_path):
    def call(texts):
        given = padded(texts)
        given["input_ids"] = (given["input_ids"] + OFFSET["by"]) % 50
        return given

    OFFSET["by"] = 0
    options = {"call": call, "rows": hookline.rows(mask="attention_mask")}
    captured(tagger, TEXTS, "mix", tmp_path, **options)
    OFFSET["by"] = 1
    with pytest.raises(CaptureError, match="other inputs for the same data"):
        captured(tagger, TEXTS, "mix", tmp_path, **options)


OFFSET = {"by": 0}


def test_other_release_warns(line, tmp_path):
    captured(line, X, "0", tmp_path)
    header = json.loads((tmp_path / "capture.json").read_text())
    header["versions"]["torch"] = "1.0"
    (tmp_path / "capture.json").write_text(json.dumps(header))
    with pytest.warns(UserWarning, match="was begun with torch 1.0, and goes on with torch"):
        captured(line, X, "0", tmp_path)


# What goes wrong


def spoiled(place):
    data = X.clone()
    data[place, 0] = float("nan")
    return data


def test_nan_is_an_error_that_names_the_example(line, tmp_path):
    with pytest.raises(CaptureError, match="example 13 has NaN at '0'; errors='skip' leaves such examples out"):
        captured(line, spoiled(13), "0", tmp_path, batch=4, unit=4)

    assert hookline.open(tmp_path).missing == [3, 4]


def test_example_with_nan_is_skipped_where_asked(line, tmp_path):
    acts = captured(line, spoiled(13), "0", tmp_path, batch=4, errors="skip")

    assert list(acts.skipped) == [13]
    assert "NaN" in acts.skipped[13]
    assert acts.finished
    torch.testing.assert_close(acts["0"][14], line[0](X)[14])
    with pytest.raises(CaptureError, match="example 13 was skipped: CaptureError: example 13 has NaN"):
        acts["0"][13]


def test_unit_of_which_all_is_skipped_is_done(line, tmp_path):
    acts = captured(line, spoiled(slice(0, 8)), "0", tmp_path, batch=4, unit=4, errors="skip")

    assert sorted(acts.skipped) == [*range(8)]
    assert acts.finished
    torch.testing.assert_close(acts["0"][8], line[0](X)[8])


def test_error_of_the_model_tells_the_examples(line, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        captured(line, torch.ones(4, 2), "0", tmp_path)

    assert any("in examples 0 to 3 of the data set" in note for note in caught.value.__notes__)


def test_error_leaves_no_hook_and_no_lease(line, tmp_path):
    with pytest.raises(RuntimeError):
        captured(line, torch.ones(4, 2), "0", tmp_path)

    assert os.listdir(tmp_path / "leases") == []
    assert "_compiled_call_impl" not in vars(line[0]) or line[0]._compiled_call_impl is None


def test_value_that_the_dtype_cannot_hold_is_an_error(tmp_path):
    model = nn.Linear(1, 1, bias=False)
    model.weight.data[:] = 1e5
    with pytest.raises(CaptureError, match=r"has values such as 1e\+05, which torch.float16 cannot hold"):
        captured(model, torch.ones(2, 1), "", tmp_path, dtype=torch.float16)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (torch.tensor([[300], [7]]), torch.int8),
        (torch.tensor([[70000], [7]]), torch.float16),
        (torch.tensor([[300.5], [7.0]]), torch.uint8),
        (torch.tensor([[70000.0], [float("inf")]]), torch.float16),
        (torch.tensor([[1e5], [7.0]]), torch.float8_e4m3fn),
        (torch.tensor([[float("inf")], [7.0]]), torch.float8_e4m3fn),
        (torch.tensor([[-float("inf")], [7.0]]), torch.float8_e5m2fnuz),
        (torch.tensor([[-1.0], [7.0]]), torch.float8_e8m0fnu),
        (torch.tensor([[0.0], [7.0]]), torch.float8_e8m0fnu),
        (torch.tensor([[3.4e38], [7.0]]), torch.bfloat16),
        (torch.tensor([[-(2**63)], [7]]), torch.float16),
        (torch.tensor([[2**31], [7]], dtype=torch.uint32), torch.int32),
        (torch.tensor([[-1], [7]]), torch.uint64),
        (torch.tensor([[2**53 + 1], [7]], dtype=torch.uint64), torch.int16),
    ],
    ids=str,
)
def test_no_dtype_changes_a_value_silently(tmp_path, values, dtype):
    model = nn.Sequential(nn.Identity())
    with pytest.raises(CaptureError, match="cannot hold"):
        captured(model, values, "0", tmp_path, dtype=dtype)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (torch.tensor([[True], [False]]), torch.float16),
        (torch.tensor([[True], [False]]), torch.uint8),
        (torch.tensor([[2**31], [7]], dtype=torch.uint32), torch.int64),
        (torch.tensor([[7], [0]], dtype=torch.uint64), torch.float32),
        (torch.tensor([[float("inf")], [-65504.0]]), torch.float16),
        (torch.tensor([[float("inf")], [1e-30]]), torch.float8_e5m2),
        (torch.tensor([[3e38], [-3e38]]), torch.bfloat16),
        (torch.tensor([[1.0], [4.0]]), torch.float8_e8m0fnu),
    ],
    ids=str,
)
def test_dtype_that_holds_all_values_is_taken(tmp_path, values, dtype):
    acts = captured(nn.Sequential(nn.Identity()), values, "0", tmp_path, dtype=dtype)
    assert [own.tolist() for own in acts["0"]] == values.to(dtype).tolist()


@pytest.mark.parametrize("lengths", [(2, 5, 3), (2, 2, 5)])
def test_units_of_different_shapes_are_an_error(tmp_path, lengths):
    model = nn.Sequential(nn.Identity())
    with pytest.raises(CaptureError, match=r"rows=hookline.rows\(mask=...\) makes each position a row"):
        captured(model, [torch.randn(length, 3) for length in lengths], "0", tmp_path, batch=1, unit=1)


def test_units_of_different_points_are_an_error(tmp_path):
    model = nn.Sequential(nn.Identity())
    keep = lambda tensor: {"a": tensor} if tensor[0, 0] < 3 else {"a": tensor, "b": tensor}
    with pytest.raises(CaptureError, match="every batch must give the same"):
        captured(model, torch.arange(6.0).reshape(6, 1), "0", tmp_path, keep=keep, batch=1, unit=1)


def test_padding_without_rows_is_an_error(tagger, tmp_path):
    with pytest.raises(CaptureError, match=r"rows=hookline.rows\(mask=...\) makes each position a row"):
        captured(tagger, TEXTS, "mix", tmp_path, call=padded, batch=2)


def test_tensor_without_examples_in_front_is_an_error(line, tmp_path):
    with pytest.raises(CaptureError, match="dimension 0 must be the examples"):
        captured(line, X, "0", tmp_path, keep=lambda tensor: tensor.T)


def test_complex_output_is_an_error_that_says_what_to_do(line, tmp_path):
    with pytest.raises(CaptureError, match="complex, quantized, nested or sparse; give keep= a function"):
        captured(line, X, "0", tmp_path, keep=torch.fft.fft)


def test_module_that_is_not_called_is_an_error(tmp_path):
    model = Twice()
    model.unused = nn.Linear(1, 1)
    with pytest.raises(CaptureError, match="'unused' was not called in this batch"):
        captured(model, torch.ones(4, 2), ["shared", "unused"], tmp_path, calls="last")


def test_dropout_in_training_mode_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match=r"'1' is in training mode.*call model.eval\(\)"):
        captured(nn.Sequential(nn.Linear(3, 3), nn.Dropout()), X, "0", tmp_path)


def test_folder_that_cannot_be_made_is_one_error(line, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot capture to"):
        captured(line, X, "0", tmp_path / "file" / "acts")


def test_full_disk_is_one_error_and_keeps_what_is_there(line, tmp_path, monkeypatch):
    captured(line, X, "0", tmp_path, batch=2, unit=4)
    (tmp_path / "units/000003.json").unlink()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StoreError, match="No space left on device"):
        captured(line, X, "0", tmp_path, batch=2, unit=4)
    monkeypatch.undo()

    assert hookline.open(tmp_path).missing == [3]
    assert [path.name for path in tmp_path.rglob(".*")] == []


def test_unit_that_another_process_is_at_is_left_to_it(line, tmp_path):
    captured(line, X, "0", tmp_path, batch=2, unit=4)
    (tmp_path / "units/000001.json").unlink()
    from hookline.capturing.folder import LocalFolder

    lease = LocalFolder(tmp_path).lease("000001")
    assert lease is not None
    assert LocalFolder(tmp_path).lease("000001") is None
    lease.end()

    assert captured(line, X, "0", tmp_path, batch=2, unit=4).finished


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be a whole number from 1, not 0"),
        ({"unit": 7, "batch": 4}, "unit must be a multiple of the batch, 4, not 7"),
        ({"keep": "outputs"}, "keep must be 'output', 'input', 'gradient' or a function, not 'outputs'"),
        ({"calls": "all"}, "calls must be"),
        ({"calls": "join"}, "calls='join' needs rows="),
        ({"errors": "ignore"}, "errors must be"),
        ({"dtype": "bfloat16"}, "dtype must be a torch.dtype"),
        ({"rows": "mask"}, r"rows= takes hookline.rows\(...\)"),
    ],
)
def test_wrong_argument_is_an_error_and_writes_nothing(line, tmp_path, options, message):
    with pytest.raises(ArgumentError, match=message):
        captured(line, X, "0", tmp_path / "acts", **options)

    assert not (tmp_path / "acts").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is damaged"), ("[]", "is damaged"), ('{"format": "hookline", "version": 9}', "update hookline")],
)
def test_header_that_is_damaged_or_newer_is_an_error(line, tmp_path, text, message):
    captured(line, X, "0", tmp_path)
    (tmp_path / "capture.json").write_text(text)
    with pytest.raises(StoreError, match=message):
        hookline.open(tmp_path)


def test_open_of_what_is_no_capture_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="holds no capture"):
        hookline.open(tmp_path)


# What has been damaged since


def data_of(folder, unit):
    return sorted((folder / "data").glob(f"{unit:06}.*"))


def content(folder):
    return {path.name: path.read_bytes() for path in (*folder.glob("data/*"), *folder.glob("units/*"))}


@pytest.mark.parametrize("damage", [os.unlink, lambda path: os.truncate(path, 20)], ids=["deleted", "cut"])
def test_damaged_unit_is_captured_again(line, tmp_path, damage):
    captured(line, X, ["0", "1"], tmp_path, batch=2, unit=4)
    before = content(tmp_path)
    damage(data_of(tmp_path, 2)[0])
    assert hookline.open(tmp_path).damaged() == [2]
    with pytest.warns(UserWarning, match=r"has lost data of 1 unit \(2\)"):
        captured(line, X, ["0", "1"], tmp_path, batch=2, unit=4)
    assert content(tmp_path) == before


def test_only_damaged_units_run_again(tmp_path):
    sizes = []

    class Counts(nn.Module):
        def forward(self, x):
            sizes.append(len(x))
            return x

    captured(Counts(), X, "", tmp_path, batch=2, unit=4)
    os.unlink(data_of(tmp_path, 3)[0])
    sizes.clear()
    with pytest.warns(UserWarning, match="lost"):
        captured(Counts(), X, "", tmp_path, batch=2, unit=4)
    assert sizes == [2, 2]


def test_changed_byte_is_found_by_reading(line, tmp_path):
    acts = captured(line, X, "0", tmp_path, batch=2, unit=4)
    (path,) = data_of(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert (acts.damaged(), acts.damaged(content=True)) == ([], [1])


# NaN and infinity


def test_infinite_values_are_no_nan(tmp_path):
    class Infinite(nn.Module):
        def forward(self, x):
            return torch.cat([x, torch.full_like(x[:, :1], torch.inf), torch.full_like(x[:, :1], -torch.inf)], 1)

    acts = captured(Infinite(), X, "", tmp_path)
    assert acts[""][3][-2:].tolist() == [torch.inf, -torch.inf]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2])
def test_nan_is_an_error_in_every_dtype(tmp_path, dtype):
    class Broken(nn.Module):
        def forward(self, x):
            return torch.where(x > 0.9, torch.nan, x).to(dtype)

    with pytest.raises(CaptureError, match="example 18 has NaN"):
        captured(Broken(), X, "", tmp_path, batch=4)


# Random numbers


class Sampler(nn.Module):
    """It adds noise, as sampling and augmentation do."""

    def forward(self, x):
        return x + torch.rand_like(x)


def augmented(batch):
    chance = numpy.random.rand() + random.random()
    return torch.stack(batch) + torch.rand(()) + chance


def test_random_numbers_are_those_of_the_batch(tmp_path):
    whole = captured(Sampler(), X, "", tmp_path / "whole", batch=2, unit=4, call=augmented)
    torch.rand(7), random.random(), numpy.random.rand()
    again = captured(Sampler(), X, "", tmp_path / "again", batch=2, unit=4, call=augmented)
    assert content(tmp_path / "whole") == content(tmp_path / "again")
    assert len({round(float(whole[""][number].sum() - X[number].sum()), 4) for number in range(20)}) == 20
    assert len(again) == 1


def test_random_numbers_differ_by_seed(tmp_path):
    one = captured(Sampler(), X, "", tmp_path / "one")
    other = captured(Sampler(), X, "", tmp_path / "other", seed=1)
    assert not torch.equal(one[""][0], other[""][0])


def test_resumed_capture_draws_the_same(tmp_path):
    captured(Sampler(), X, "", tmp_path / "whole", batch=2, unit=4, call=augmented)
    captured(Sampler(), X, "", tmp_path / "cut", batch=2, unit=4, call=augmented)
    os.unlink(tmp_path / "cut" / "units" / "000002.json")
    captured(Sampler(), X, "", tmp_path / "cut", batch=2, unit=4, call=augmented)
    assert content(tmp_path / "whole") == content(tmp_path / "cut")


def test_generators_of_the_program_do_not_move(tmp_path):
    before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
    captured(Sampler(), X, "", tmp_path, call=augmented)
    after = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_random_stream_goes_on_the_same(tmp_path):
    class Noisy:
        def __iter__(self):
            return ({"id": number, "x": X[number] + torch.rand(3)} for number in range(20))

    def stacked(batch):
        return torch.stack(batch["x"])

    for name in ("whole", "cut"):
        captured(nn.Tanh(), Noisy(), "", tmp_path / name, batch=2, unit=4, call=stacked, id="id")
    os.unlink(tmp_path / "cut" / "units" / "000002.json")
    captured(nn.Tanh(), Noisy(), "", tmp_path / "cut", batch=2, unit=4, call=stacked, id="id")
    assert content(tmp_path / "whole") == content(tmp_path / "cut")


class Shuffled:
    """A stream in an order that it draws."""

    def __iter__(self):
        order = list(range(20))
        random.shuffle(order)
        return ({"id": number, "x": X[number]} for number in order)


def shuffled(to, **options):
    options = {"call": lambda batch: torch.stack(batch["x"]), "batch": 2, "unit": 4, "id": "id", **options}
    return captured(nn.Tanh(), Shuffled(), "", to, **options)


def test_stream_in_an_order_that_it_draws_goes_on_in_that_order(tmp_path):
    whole = shuffled(tmp_path / "whole")
    shuffled(tmp_path / "cut")
    os.unlink(tmp_path / "cut" / "units" / "000002.json")
    before = random.getstate()
    shuffled(tmp_path / "cut")

    assert sorted(whole.ids) == [*range(20)] != whole.ids
    assert content(tmp_path / "whole") == content(tmp_path / "cut")
    assert random.getstate() == before


def test_stream_in_an_order_that_it_draws_has_each_example_once_where_some_fail(tmp_path):
    def some(batch):
        if batch["id"] != [*{*batch["id"]} - {7}][:1]:
            raise ValueError("two, or seven")
        return torch.stack(batch["x"])

    acts = shuffled(tmp_path, errors="skip", call=some)

    assert acts.ids == shuffled(tmp_path / "whole").ids
    assert [acts.ids[number] for number in acts.skipped] == [7]


def test_part_of_a_stream_in_an_order_that_it_draws_is_that_of_the_whole():
    options = {"call": lambda batch: torch.stack(batch["x"]), "batch": 2, "id": "id", "progress": False}
    whole, *parts = (
        hookline.totals(nn.Tanh(), Shuffled(), "", part=part, **options) for part in ((0, 1), (0, 3), (1, 3), (2, 3))
    )

    assert torch.equal(sum(parts)[""].mean, whole[""].mean)


def test_loader_with_an_order_that_its_sampler_draws_goes_on_in_that_order(line, tmp_path):
    def loaded(to):
        data = TensorDataset(X)
        loader = DataLoader(data, batch_size=2, sampler=SubsetRandomSampler(range(20)))
        return captured(line, loader, "", to, call=lambda batch: batch[0], unit=4)

    loaded(tmp_path / "whole"), loaded(tmp_path / "cut")
    os.unlink(tmp_path / "cut" / "units" / "000002.json")
    loaded(tmp_path / "cut")

    assert content(tmp_path / "whole") == content(tmp_path / "cut")


def test_seed_must_be_a_number(line, tmp_path):
    with pytest.raises(ArgumentError, match="seed must be a whole number, not 'x'"):
        captured(line, X, "", tmp_path, seed="x")

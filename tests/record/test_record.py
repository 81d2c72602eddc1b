"""Tests of a run as its reader meets it: calls by path and number, the tree, tensors, the data frame."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hookline
from hookline import RecordError, Run
from hookline.record.record import row


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.act = nn.ReLU()
        self.unused = nn.Dropout()

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        return self.act(self.linear(x)) * scale


class Model(nn.Module):
    """Two blocks, the first of them called twice, and a norm with two paths."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Block(), Block()])
        self.norm = nn.LayerNorm(4)
        self.again = self.norm

    def forward(self, x: Tensor) -> dict[str, Any]:
        for block in (self.layer[0], self.layer[0], self.layer[1]):
            x = self.norm(block(x, scale=0.5))
        return {"logits": x, "parts": (x, None)}


@pytest.fixture
def run() -> Run:
    model = Model()
    with hookline.watch(model, grads=True) as run:
        model(torch.ones(2, 4))["logits"].sum().backward()
    return run


# Calls by path


def test_a_path_gives_the_first_call(run: Run) -> None:
    assert (run["layer.0"].path, run["layer.0"].index) == ("layer.0", 0)


def test_a_path_and_an_index_give_that_call(run: Run) -> None:
    assert [run["norm", index].index for index in (0, 1, 2)] == [0, 1, 2]


def test_a_negative_index_counts_from_the_last_call(run: Run) -> None:
    assert run["norm", -1] is run["norm", 2]
    assert run["norm", -3] is run["norm", 0]


def test_the_empty_path_gives_the_call_of_the_model(run: Run) -> None:
    assert run[""].type == "Model"


def test_any_path_of_a_shared_module_gives_its_calls(run: Run) -> None:
    assert run["again", 1] is run["norm", 1]


def test_the_other_paths_of_a_shared_module_are_known(run: Run) -> None:
    assert run.aliases == {"again": "norm"}
    assert "again" not in run.modules


def test_calls_of_gives_all_calls_of_a_module(run: Run) -> None:
    assert [call.index for call in run.calls_of("norm")] == [0, 1, 2]
    assert run.calls_of("again") == run.calls_of("norm")


def test_calls_of_sees_calls_that_come_later() -> None:
    model = nn.ReLU()
    with hookline.watch(model) as run:
        model(torch.ones(1))
        assert len(run.calls_of("")) == 1
        model(torch.ones(1))
        assert len(run.calls_of("")) == 2


def test_a_run_contains_the_paths_that_were_called(run: Run) -> None:
    assert "layer.0" in run
    assert "again" in run
    assert "layer.0.unused" not in run
    assert "nowhere" not in run


def test_an_unknown_path_names_the_nearest(run: Run) -> None:
    with pytest.raises(RecordError, match=r"'layer\.0\.linar' is not in the run; nearest: layer\.0\.linear"):
        run["layer.0.linar"]


def test_a_path_like_no_other_has_no_nearest(run: Run) -> None:
    with pytest.raises(RecordError, match="'zzzzzzzz' is not in the run$"):
        run["zzzzzzzz"]


def test_a_module_that_was_watched_but_not_called_says_so(run: Run) -> None:
    with pytest.raises(RecordError, match=r"'layer\.0\.unused' was watched but never called"):
        run["layer.0.unused"]


@pytest.mark.parametrize(
    ("path", "index", "times"), [("norm", 3, "3 calls"), ("norm", -4, "3 calls"), ("layer.1", 1, "1 call")]
)
def test_an_index_that_is_no_call_says_how_many_there_are(run: Run, path: str, index: int, times: str) -> None:
    with pytest.raises(RecordError, match=f"'{path}' has {times} in the run, but none at {index}"):
        run[path, index]


@pytest.mark.parametrize("key", [None, 0.5, ("norm", "0"), ("norm", 0, 1), (0, "norm"), ()])
def test_wrong_key_raises_with_the_right_ones(run: Run, key: Any) -> None:
    with pytest.raises(RecordError) as caught:
        run[key]

    for part in (f"{key!r} is not a key of the run", "run['path']", "run['path', 2]", "run[0]"):
        assert part in str(caught.value)


def test_an_index_may_be_any_integer(run: Run) -> None:
    assert run["norm", torch.tensor(2)] is run["norm", 2]


def test_a_record_error_is_a_lookup_error(run: Run) -> None:
    with pytest.raises(LookupError):
        run["zzzzzzzz"]


def test_find_gives_the_calls_of_a_glob_in_order(run: Run) -> None:
    assert [(call.path, call.index) for call in run.find("layer.*")] == [("layer.0", 0), ("layer.0", 1), ("layer.1", 0)]


def test_find_knows_every_path_of_a_shared_module(run: Run) -> None:
    assert run.find("again") == run.calls_of("norm")


def test_find_that_finds_nothing_gives_nothing(run: Run) -> None:
    assert run.find("head.**") == []


def test_never_called_gives_the_watched_paths_without_a_call(run: Run) -> None:
    assert run.never_called == ["layer", "layer.0.unused", "layer.1.unused"]


# The tree


def test_calls_stand_in_the_order_in_which_they_began(run: Run) -> None:
    assert [call.path for call in run][:5] == ["", "layer.0", "layer.0.linear", "layer.0.act", "norm"]
    assert [call.number for call in run] == list(range(len(run)))


def test_children_gives_the_calls_directly_inside(run: Run) -> None:
    assert [call.path for call in run.children(run[""])] == ["layer.0", "norm", "layer.0", "norm", "layer.1", "norm"]
    assert [call.path for call in run.children(run["layer.0", 1])] == ["layer.0.linear", "layer.0.act"]


def test_children_of_nothing_are_the_outermost_calls(run: Run) -> None:
    assert run.children() == [run[""]]


def test_a_call_without_calls_inside_has_no_children(run: Run) -> None:
    assert run.children(run["norm"]) == []


def test_depth_counts_the_calls_around(run: Run) -> None:
    assert [run[path].depth for path in ("", "layer.0", "layer.0.act")] == [0, 1, 2]


def test_parents_skip_modules_that_are_not_watched() -> None:
    model = Model()
    with hookline.watch(model, ["", "**.linear"]) as run:
        model(torch.ones(2, 4))

    assert {call.parent for call in run.find("**.linear")} == {run[""]}


def test_the_seconds_of_a_run_are_those_of_its_outermost_calls(run: Run) -> None:
    assert run.seconds == run[""].seconds > run["layer.0"].seconds > 0


def test_a_call_ends_before_the_one_around_it(run: Run) -> None:
    for call in run:
        around = call.parent
        assert (
            around is None or around.began <= call.began <= call.began + call.seconds <= around.began + around.seconds
        )


def test_the_length_of_a_run_is_the_number_of_calls(run: Run) -> None:
    assert len(run) == len(list(run)) == len(run.calls) == 13


def test_a_run_names_its_model_and_the_classes_of_its_modules(run: Run) -> None:
    assert run.model == "Model"
    assert run.modules["layer.0"] == "Block"


# What a call took and gave


def test_arguments_stand_as_they_were_given(run: Run) -> None:
    call = run["layer.0"]

    assert (call.args[0].shape, call.kwargs) == ((2, 4), {"scale": 0.5})


def test_the_output_is_nested_as_it_was(run: Run) -> None:
    output = run[""].output

    assert list(output) == ["logits", "parts"]
    assert isinstance(output["parts"], tuple)
    assert output["parts"][1] is None


def test_inputs_and_outputs_are_all_tensors_in_order(run: Run) -> None:
    assert [info.shape for info in run["layer.0"].inputs] == [(2, 4)]
    assert [info.shape for info in run[""].outputs] == [(2, 4), (2, 4)]


def test_grad_output_has_the_nesting_of_the_output(run: Run) -> None:
    gradient = run[""].grad_output

    assert list(gradient) == ["logits", "parts"]
    assert gradient["logits"].mean == 1.0
    assert gradient["parts"][0].mean == 1.0
    assert gradient["parts"][1] is None


def test_without_grads_grad_output_is_none_for_every_tensor() -> None:
    model = Model()
    with hookline.watch(model) as run:
        model(torch.ones(2, 4))["logits"].sum().backward()

    assert run[""].grad_output == {"logits": None, "parts": (None, None)}


def test_training_is_the_mode_of_the_module() -> None:
    model = Model()
    model.layer[0].eval()
    with hookline.watch(model) as run:
        model(torch.ones(2, 4))

    assert (run["layer.0"].training, run["layer.1"].training) == (False, True)


def test_a_call_reads_as_what_it_gave(run: Run) -> None:
    assert repr(run["layer.0.act", 1]).startswith("<layer.0.act #1: ReLU -> TensorInfo(float32[2, 4] cpu, mean=")
    assert repr(run[""]).startswith("<(the model) #0: Model -> {'logits': TensorInfo(")


# Tensors


def test_a_figure_reads_from_the_tensor(run: Run) -> None:
    info = run["norm"].output

    assert info.mean == info.stats.mean


def test_an_unknown_attribute_of_a_tensor_names_the_known_ones(run: Run) -> None:
    with pytest.raises(
        AttributeError, match="TensorInfo has no 'median'; it has shape, dtype, device, stats, count, min, "
    ):
        _ = run["norm"].output.median


def test_a_tensor_reads_as_dtype_shape_and_device() -> None:
    model = nn.ReLU()
    with hookline.watch(model, keep="shape") as run:
        model(torch.ones(2, 3, dtype=torch.float64))

    assert repr(run[""].output) == "TensorInfo(float64[2, 3] cpu)"
    assert str(run[""].output) == "float64[2, 3] tensor"


# The data frame


def test_a_data_frame_has_a_row_for_each_call(run: Run) -> None:
    frame = run.to_pandas()

    assert list(frame["path"]) == [call.path for call in run]
    assert list(frame["index"]) == [call.index for call in run]


def test_a_data_frame_has_these_columns(run: Run) -> None:
    assert list(run.to_pandas().columns) == [
        *(
            "path",
            "index",
            "type",
            "depth",
            "parent",
            "began",
            "seconds",
            "input_shapes",
            "output_shape",
            "dtype",
            "device",
        ),
        *(
            "min",
            "max",
            "mean",
            "std",
            "absmax",
            "norm",
            "zeros",
            "nan",
            "inf",
            "grad_norm",
            "grad_input_norm",
            "error",
            "recompute",
        ),
    ]


def test_a_row_of_a_data_frame_is_of_the_first_output(run: Run) -> None:
    row = run.to_pandas().set_index("path").loc["layer.1"]
    output = run["layer.1"].output

    assert (row["type"], row["depth"], row["parent"]) == ("Block", 1, run[""].number)
    assert (row["output_shape"], row["dtype"], row["device"]) == ((2, 4), "float32", "cpu")
    assert (row["input_shapes"], row["mean"], row["grad_norm"]) == ([(2, 4)], output.mean, output.grad.norm)


def test_a_data_frame_of_a_run_without_figures_has_empty_columns() -> None:
    model = nn.ReLU()
    with hookline.watch(model, keep="shape") as run:
        model(torch.ones(2))

    assert run.to_pandas()[["mean", "grad_norm", "error"]].isna().all(axis=None)


def test_an_empty_run_has_an_empty_data_frame_with_the_same_columns(run: Run) -> None:
    with hookline.watch(nn.ReLU()) as empty:
        pass

    assert len(empty.to_pandas()) == 0
    assert list(empty.to_pandas().columns) == list(run.to_pandas().columns) == list(row(run[""]))


# An empty run


def test_a_run_in_which_nothing_was_called_is_empty() -> None:
    with hookline.watch(nn.Sequential(nn.ReLU())) as run:
        pass

    assert (len(run), run.calls, run.children(), run.seconds) == (0, [], [], 0.0)
    assert run.never_called == ["", "0"]

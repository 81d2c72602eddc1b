"""Methods other than `__call__`: their calls are recorded where that is asked for, and nothing is left behind."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

import hookline


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.calls = 0

    def forward(self, x):
        return self.layer(x)

    def encode(self, x, *, scale=1.0):
        """Encode."""
        return scale * self.layer(x)

    def twice(self, x):
        return self.encode(x), self.forward(x)

    @staticmethod
    def halve(x):
        return x / 2

    @classmethod
    def named(cls, x):
        return cls.__name__, x

    @property
    def size(self):
        raise AssertionError("nobody asked")


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.encoder.encode(x, scale=2.0))

    def score(self, x):
        return self(x).sum()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


@pytest.fixture
def x():
    return torch.ones(2, 4)


def paths(run):
    return [(call.path, call.parent.path if call.parent else None) for call in run]


def test_calls_of_a_method_are_recorded_under_its_name(model, x):
    with hookline.watch(model, methods=["encode"]) as run:
        model(x)
    assert paths(run) == [("", None), ("encoder.encode()", ""), ("encoder.layer", "encoder.encode()"), ("head", "")]


def test_without_being_asked_for_they_are_not(model, x):
    with hookline.watch(model) as run:
        model(x)
    assert [call.path for call in run] == ["", "encoder.layer", "head"]


def test_a_record_knows_the_method(model, x):
    with hookline.watch(model, methods=["encode"]) as run:
        model(x)
    assert (run["encoder.encode()"].method, run[""].method) == ("encode", None)


def test_arguments_and_output_are_recorded(model, x):
    with hookline.watch(model, methods=["encode"], keep="tensor", inputs="tensor") as run:
        model(x)
    call = run["encoder.encode()"]
    assert call.args[0].value is x
    assert call.kwargs == {"scale": 2.0}
    assert call.output.shape == (2, 3)


def test_gradients_of_its_output_and_arguments_are_recorded(model, x):
    with hookline.watch(model, methods=["encode"], grads="input") as run:
        model(x.requires_grad_()).sum().backward()
    call = run["encoder.encode()"]
    assert call.grad_output.shape == (2, 3)
    assert call.grad_input[0].shape == (2, 4)


def test_a_method_of_the_model_itself_stands_around_its_call(model, x):
    with hookline.watch(model, "", methods=["score"]) as run:
        model.score(x)
    assert paths(run) == [("score()", None), ("", "score()")]


def test_calls_are_counted_for_each_method(model, x):
    with hookline.watch(model, methods=["encode", "twice"]) as run:
        model.encoder.encode(x)
        model.encoder.twice(x)
    assert [(call.path, call.index) for call in run.find("encoder.*()")] == [
        ("encoder.encode()", 0),
        ("encoder.twice()", 0),
        ("encoder.encode()", 1),
    ]


def test_a_forward_that_is_called_by_name_is_recorded(model, x):
    with hookline.watch(model, methods=["forward"]) as run:
        model.encoder.forward(x)
    assert paths(run) == [("encoder.forward()", None), ("encoder.layer", "encoder.forward()")]


def test_a_forward_that_is_called_through_the_module_is_recorded_once(model, x):
    with hookline.watch(model, methods=["forward"]) as run:
        model.encoder(x)
    assert [call.path for call in run] == ["encoder", "encoder.layer"]


def test_with_hooks_of_pytorchs_on_the_module_too(model, x):
    model.encoder.register_forward_hook(lambda *_: None)
    with hookline.watch(model, methods=["forward"]) as run:
        model.encoder(x)
    assert [call.path for call in run] == ["encoder", "encoder.layer"]


def test_a_forward_that_a_forward_calls_by_name_is_recorded(x):
    class Again(nn.Module):
        def forward(self, x, deep=True):
            return self.forward(x, deep=False) if deep else x

    model = Again()
    with hookline.watch(model, methods=["forward"]) as run:
        model(x)
    assert paths(run) == [("", None), ("forward()", "")]


def test_a_forward_that_another_method_calls_is_recorded(model, x):
    with hookline.watch(model, methods=["forward", "twice"]) as run:
        model.encoder.twice(x)
    assert ("encoder.forward()", "encoder.twice()") in paths(run)


def test_static_and_class_methods_are_methods(model, x):
    with hookline.watch(model, methods=["halve", "named"], keep="tensor") as run:
        assert torch.equal(model.encoder.halve(x), x / 2)
        assert model.encoder.named(x)[0] == "Encoder"
    assert [call.path for call in run] == ["encoder.halve()", "encoder.named()"]


def test_a_method_that_an_instance_has_of_its_own_is_one_too(model, x):
    own = model.head.encode = lambda x: x + 1
    with hookline.watch(model, "head", methods=["encode"]) as run:
        model.head.encode(x)
    assert [call.path for call in run] == ["head.encode()"]
    assert model.head.__dict__["encode"] is own


def test_an_error_says_which_method_it_came_from(model):
    with pytest.raises(RuntimeError) as raised, hookline.watch(model, methods=["encode"]) as run:
        model.encoder.encode(torch.ones(2, 5))
    assert "encoder.encode()" in "".join(raised.value.__notes__)
    assert run["encoder.encode()"].error.startswith("RuntimeError")


@pytest.mark.parametrize("name", ["decode", "size", "layer", "calls", "__call__"])
def test_what_no_selected_module_has_as_a_method_is_an_error(model, name):
    with pytest.raises(hookline.SelectionError, match=f"none of the 4 selected modules has a method '{name}'"):
        hookline.watch(model, methods=["encode", name])


def test_one_name_may_stand_alone(model, x):
    with hookline.watch(model, methods="encode") as run:
        model(x)
    assert "encoder.encode()" in run


def test_a_watched_method_that_is_not_called_is_told(model):
    with hookline.watch(model, "encoder", methods=["encode"]) as run:
        model.encoder(torch.ones(1, 4))
    assert run.never_called == ["encoder.encode()"]


def test_a_forward_is_called_where_its_module_is(model, x):
    with hookline.watch(model, "head", methods=["forward"]) as run:
        model(x)
    assert run.never_called == []


def test_the_table_shows_methods_and_what_runs_inside_of_them(model, x):
    with hookline.watch(model, methods=["encode"]) as run:
        model(x)
    assert [line.split()[0] for line in repr(run).splitlines()[2:6]] == ["Model", "encoder.encode()", "layer", "head"]


def test_a_run_with_methods_comes_back_from_disk(model, x, tmp_path):
    with hookline.watch(model, methods=["encode"]) as run:
        model(x)
    run.save(tmp_path / "run")
    loaded = hookline.load(tmp_path / "run")
    assert (paths(loaded), loaded.settings["methods"]) == (paths(run), ["encode"])


# What it looks like meanwhile, and what is left


def test_a_watched_method_has_the_name_signature_and_self_of_the_method(model):
    plain = inspect.signature(model.encoder.encode)
    with hookline.watch(model, methods=["encode"]):
        method = model.encoder.encode
        assert inspect.signature(method) == plain
        assert (method.__name__, method.__doc__, method.__self__) == ("encode", "Encode.", model.encoder)
        assert inspect.ismethod(method)


def test_results_are_those_without_a_watch(model, x):
    plain = model(x)
    with hookline.watch(model, methods=["encode", "forward"], grads=True):
        assert torch.equal(model(x), plain)


def test_afterwards_the_instance_has_what_it_had(model):
    before = [dict(module.__dict__) for module in model.modules()]
    with hookline.watch(model, methods=["encode", "forward", "halve"]):
        assert "encode" in model.encoder.__dict__
    assert [dict(module.__dict__) for module in model.modules()] == before


@pytest.mark.parametrize("first", [0, 1])
def test_two_watches_may_end_in_any_order(model, x, first):
    watches = [hookline.watch(model, methods=["encode"]) for _ in range(2)]
    runs = [watch.__enter__() for watch in watches]
    model(x)
    watches[first].__exit__(None, None, None)
    model(x)
    watches[1 - first].__exit__(None, None, None)
    model(x)
    assert [len(run.calls_of("encoder.encode()")) for run in (runs[first], runs[1 - first])] == [1, 2]
    assert "encode" not in model.encoder.__dict__


def test_what_somebody_puts_in_its_place_meanwhile_stays(model):
    with hookline.watch(model, methods=["encode"]):
        other = model.encoder.encode = lambda x: x
    assert model.encoder.encode is other


def test_a_method_that_was_bound_meanwhile_is_the_plain_one_afterwards(model, x):
    with hookline.watch(model, methods=["encode"]) as run:
        bound = model.encoder.encode
    assert torch.equal(bound(x), model.encoder.encode(x))
    assert len(run) == 0


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_the_plain_model(model, x, copied):
    with hookline.watch(model, methods=["encode", "forward"]) as run:
        twin = copied(model.encoder)
        twin.encode(x)
        twin(x)
        assert {"encode", "forward"} <= {*model.encoder.__dict__}
    assert not {"encode", "forward", "_hookline"} & {*twin.__dict__}
    assert [call.path for call in run] == (["encoder.layer"] * 2 if copied is copy.copy else [])


def test_a_named_method_of_a_replica_is_that_of_the_module_it_was_made_of(model):
    with hookline.watch(model, methods=["encode"]):
        replica = model.encoder._replicate_for_data_parallel()
        assert replica.encode.__self__ is model.encoder


def test_where_one_of_the_methods_cannot_be_put_on_none_is(model):
    class Closed(nn.Module):
        encode = None

    model.closed = Closed()
    with hookline.watch(model, methods=["encode"]):
        pass
    assert "encode" not in model.closed.__dict__


@pytest.mark.graph
def test_after_a_watched_model_was_compiled_a_pickle_is_still_the_plain_model(model, x):
    with hookline.watch(model):
        torch.compile(model, backend="eager")(x)
        twin = pickle.loads(pickle.dumps(model.encoder))
    assert type(twin) is Encoder
    assert torch.equal(twin(x), model.encoder(x))

"""diff: what it gives back, prints and saves, and what it refuses."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toys import Gives

import hookline
import hookline.demo
from hookline.errors import CompareError, SelectionError
from hookline.testing import recorded, toy

X = torch.linspace(-1, 1, 12).reshape(3, 4)


def with_another_bias(model: nn.Module, by: float = 0.5) -> nn.Module:
    """A copy of a toy, in which one number is another."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[2][0].bias[1] += by
    return other


def differing(**options: object) -> hookline.Diff:
    return hookline.diff(toy(), with_another_bias(toy()), X, **options)


def test_the_first_and_the_culprit_are_named_and_why() -> None:
    found = differing()

    assert found
    assert not found.same
    assert found.first is found.culprit is found["2.0"]
    assert found.culprit.why.startswith("bias differs: by up to 0.5")
    assert [weight.name_a for weight in found.weights] == ["2.0.bias"]
    assert "first 2.0 (Linear); culprit 2.0 (Linear): bias differs" in found.summary


def test_the_first_is_the_one_that_ended_first() -> None:
    found = differing()

    assert [pair.path for pair in found] == ["", "0", "1", "2", "2.0", "2.1", "3"]
    assert [pair.path for pair in sorted(found, key=lambda pair: pair.ended)] == ["0", "1", "2.0", "2.1", "2", "3", ""]


def test_amplification_is_error_out_over_error_in() -> None:
    model = nn.Sequential(Gives(lambda x: x), Gives(lambda x: 3 * x + 0), Gives(lambda x: x - x.mean()))
    other = nn.Sequential(Gives(lambda x: x + 0.1), *model[1:])

    found = hookline.diff(model, other, X + 1)

    assert math.isinf(found["0"].amplification)
    assert found["1"].amplification == pytest.approx(1)
    assert found["2"].amplification == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("keep", ["copy", "stats", hookline.fingerprint], ids=["copy", "stats", "fingerprint"])
def test_less_can_be_kept(keep: object) -> None:
    found = differing(keep=keep)

    assert found.culprit is not None
    assert found.culprit.path == "2.0"


def test_tolerances_are_set_for_all_or_by_glob() -> None:
    assert not differing(tolerances=(0.0, 10.0))
    assert {pair.path for pair in differing(tolerances={"2.**": (0.0, 10.0)}) if pair.differs} == {"3", ""}


def test_where_narrows_what_is_compared() -> None:
    assert [pair.path for pair in differing(where="2.*")] == ["2.0", "2.1"]
    assert differing(where="2.*").culprit.path == "2.0"


def test_keyword_arguments_and_nested_outputs_are_compared() -> None:
    class Nested(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = by

        def forward(self, *, x: Tensor) -> dict[str, object]:
            return {"out": x, "more": (x + self.by, None)}

    found = hookline.diff(Nested(0.0), Nested(1.0), x=X)

    assert {key: part.differs for key, part in found[0].outputs.items()} == {"out": False, "more.0": True}
    assert list(found[0].inputs) == ["x"]
    assert found.culprit.why == "by 0.0 vs 1.0"


def test_gradients_are_compared_from_ones_own_loss() -> None:
    model = toy()
    other = with_another_bias(model)

    found = hookline.diff(model, other, X, loss=lambda output: output.sum(), grads=True)

    assert not found["3"].grads[""].differs
    assert found["0"].gradients_differ
    assert model[0].weight.grad is None


def test_runs_with_their_inputs_tell_the_culprit_too() -> None:
    runs = []
    for model in (toy(), with_another_bias(toy())):
        with hookline.watch(model, keep="copy", inputs="copy") as run, torch.no_grad():
            model(X)
        runs.append(run)

    found = hookline.diff(*runs)

    assert found.culprit.path == "2.0"
    assert "outputs differ on the same inputs" in found.culprit.why
    assert found.weights == ()


def test_runs_without_their_inputs_tell_where_and_say_what_is_missing() -> None:
    found = hookline.diff(recorded(toy(), X), recorded(with_another_bias(toy()), X))

    assert found.first.path == "2.0"
    assert found.culprit is None
    assert "watch(inputs=hookline.fingerprint)" in " ".join(found.notes)


def test_runs_of_other_inputs_say_so() -> None:
    runs = []
    for x in (X, X + 1):
        model = toy()
        with hookline.watch(model, keep=hookline.fingerprint, inputs=hookline.fingerprint) as run, torch.no_grad():
            model(x)
        runs.append(run)

    found = hookline.diff(*runs)

    assert found.culprit is None
    assert found.notes[0] == "the inputs of the model differ: argument 0"


def test_a_run_that_ended_in_an_error_differs() -> None:
    def failing(x: Tensor) -> Tensor:
        raise ValueError("no")

    runs = []
    for function in (torch.relu, failing):
        model = nn.Sequential(nn.Identity(), Gives(function))
        with hookline.watch(model, keep="copy", inputs="copy") as run:
            if function is failing:
                with pytest.raises(ValueError, match="no"):
                    model(X)
            else:
                model(X)
        runs.append(run)

    found = hookline.diff(*runs)

    assert found.culprit.path == "1"
    assert found.culprit.why == "raised ValueError: no"


@pytest.mark.graph
def test_a_compiled_model_is_compared_inside() -> None:
    model = toy()
    found = hookline.diff(model, torch.compile(copy.deepcopy(model), backend="eager"), X)

    assert not found
    assert [pair.path for pair in found] == [pair.path for pair in hookline.diff(model, copy.deepcopy(model), X)]
    assert found.unmatched == ()
    assert found.notes == ("compiled Sequential is compiled: to find the culprit, its modules are run uncompiled",)


@pytest.mark.graph
def test_the_module_of_a_compiled_model_that_differs_is_named() -> None:
    model = toy()
    found = hookline.diff(model, torch.compile(with_another_bias(model), backend="eager"), X)

    assert found.culprit.path == "2.0"
    assert "bias differs" in found.culprit.why


def test_what_has_no_partner_is_listed() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.0))
    found = hookline.diff(model, nn.Sequential(model[0]), X)

    assert not found
    assert found.only_a == (("1", 0, "Dropout"),)
    assert "only the first calls: 1" in repr(found)


def test_it_prints_the_differing_branch_and_folds_what_agrees() -> None:
    text = repr(differing())

    assert "... 2 calls agree" in text
    assert "CULPRIT: bias differs" in text
    assert text.splitlines()[0].startswith(
        "Sequential and Sequential: outputs differ; 5 of 7 calls differ, first 2.0 (Linear)"
    )
    assert "weights that differ: 2.0.bias" in text
    assert repr(hookline.diff(toy(), toy(), X)) == "Sequential and Sequential: outputs agree; no difference in 7 calls"


def test_the_page_of_a_notebook_escapes_what_it_shows() -> None:
    model = nn.Sequential(Gives(lambda x: x))
    model.__class__ = type("<b>", (nn.Sequential,), {})

    page = hookline.diff(model, nn.Sequential(Gives(lambda x: x + 1)), X)._repr_html_()

    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert "CULPRIT" in page


def test_it_is_saved_and_loaded_whole(tmp_path: object) -> None:
    found = differing(grads=True)
    found.save(f"{tmp_path}/diff")
    loaded = hookline.load(f"{tmp_path}/diff")

    assert loaded.pairs == found.pairs
    assert repr(loaded) == repr(found)
    assert loaded.to_dict() == found.to_dict()
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["culprit"] == found.culprit.number


def test_diff_of_version_1_is_read(tmp_path: Path) -> None:
    found = differing()
    found.save(tmp_path)
    file = tmp_path / "diff.json"
    text = file.read_text()
    assert '"version": 2' in text
    file.write_text(text.replace('"version": 2', '"version": 1').replace('"is_culprit"', '"makes_it"'))
    assert hookline.load(tmp_path).pairs == found.pairs


def test_to_pandas_has_a_row_for_each_pair() -> None:
    frame = differing().to_pandas()

    assert list(frame.path_a) == ["", "0", "1", "2", "2.0", "2.1", "3"]
    assert frame.set_index("path_a").loc["2.0", "absolute"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        ((toy(), recorded(toy(), X)), {}, "two models, two runs or two captures, not Sequential and Run"),
        ((recorded(toy(), X), recorded(toy(), X), X), {}, "takes no inputs"),
        ((recorded(toy(), X), recorded(toy(), X)), {"grads": True}, "takes no inputs"),
        ((toy(), toy(), X), {"tolerances": 0.1}, r"a tolerance must be a pair \(relative, absolute\), not 0.1"),
        ((recorded(toy(), X), recorded(toy(), X)), {"where": nn.Linear}, "where must be a glob or a list of globs"),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments: tuple, options: dict, says: str) -> None:
    with pytest.raises(hookline.ArgumentError, match=says):
        hookline.diff(*arguments, **options)


def test_where_that_picks_nothing_is_refused() -> None:
    with pytest.raises(SelectionError, match="matches none"):
        differing(where="nowhere")
    with pytest.raises(SelectionError, match="matches none"):
        hookline.diff(recorded(toy(), X), recorded(toy(), X), where="nowhere")


def test_what_a_model_raises_goes_on() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        hookline.diff(toy(), toy(), torch.ones(3, 5))


def test_weights_below_a_renamed_module_that_nobody_calls_are_compared() -> None:
    class Around(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name
            setattr(self, name, nn.MultiheadAttention(4, 2, batch_first=True))

        def forward(self, x: Tensor) -> Tensor:
            return getattr(self, self.name)(x, x, x)[0]

    model, port = Around("attention"), Around("attn")
    port.attn.load_state_dict(model.attention.state_dict())
    with torch.no_grad():
        port.attn.out_proj.weight.neg_()

    found = hookline.diff(model, port, X[None], mapping={"attention": "attn"})

    assert [(weight.name_a, weight.name_b) for weight in found.weights] == [
        ("attention.out_proj.weight", "attn.out_proj.weight")
    ]
    assert found.culprit.path == "attention"
    assert found.culprit.why.startswith("out_proj.weight differs")
    assert found.culprit.why.endswith("negated")


def test_arguments_that_cannot_be_copied_are_shared() -> None:
    class Stubborn:
        def __deepcopy__(self, memo: object) -> None:
            raise TypeError("no")

    class Takes(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = by

        def forward(self, x: Tensor, extra: object) -> Tensor:
            assert isinstance(extra, Stubborn)
            return x.mul_(self.by)

    x = X.clone()
    assert not hookline.diff(Takes(2.0), Takes(2.0), x, Stubborn())
    assert hookline.diff(Takes(2.0), Takes(3.0), x, Stubborn()).culprit.path == ""
    assert torch.equal(x, X)


def test_an_output_that_only_one_gives_is_a_note() -> None:
    model = nn.Sequential(Gives(lambda x: (x, None)))
    more = nn.Sequential(Gives(lambda x: (x, x + 1)))

    found = hookline.diff(model, more, X)

    assert not found
    assert found.notes == (
        "outputs that only one model returns are not compared: 1 of the model, and of 1 more modules",
    )
    assert hookline.diff(nn.Sequential(Gives(lambda x: None)), more, X).culprit.path == "0"


@pytest.mark.parametrize(
    ("gives", "key", "says"),
    [
        (lambda x, k: 2.5 * k, "", "2.5 vs 5.0"),
        (lambda x, k: (x, 3.0 * k), "1", "3.0 vs 6.0"),
        (lambda x, k: {"x": x, "more": ["abc"[k:], k > 1, None]}, "more.0", "'bc' vs 'c'"),
        (lambda x, k: (x, None if k == 1 else 1), "1", "None vs 1"),
    ],
    ids=["a number", "beside a tensor", "text", "None"],
)
def test_outputs_that_are_no_tensors_are_compared(gives: object, key: str, says: str, tmp_path: object) -> None:
    models = [nn.Sequential(Gives(lambda x, k=k: gives(x, k))) for k in (1, 2)]

    found = hookline.diff(*models, X)

    assert found
    assert not found.identical
    assert found.culprit.path == "0"
    assert str(found["0"].outputs[key]) == says
    found.save(f"{tmp_path}/diff")
    assert repr(hookline.load(f"{tmp_path}/diff")) == repr(found)
    assert not hookline.diff(models[0], models[0], X)


def test_a_number_that_is_the_same_but_for_rounding_is_no_difference() -> None:
    found = hookline.diff(Gives(lambda x: 3.0), Gives(lambda x: 3.0000001), X)

    assert not found
    assert not found.identical
    assert hookline.diff(Gives(lambda x: 3.0), Gives(lambda x: 3.0000001), X, tolerances=(0, 0))
    assert hookline.diff(Gives(lambda x: 2**60), Gives(lambda x: 2**60 + 1), X)
    assert hookline.diff(Gives(lambda x: math.inf), Gives(lambda x: 1.0), X)


def test_two_of_which_nothing_belongs_together_are_refused() -> None:
    with pytest.raises(CompareError, match=r"nothing to compare.*pass mapping="):
        hookline.diff(toy(), nn.Sequential(nn.Linear(4, 7)), X, where="1")


def test_two_runs_of_which_nothing_belongs_together_are_refused() -> None:
    runs = []
    for where in ("0", "3"):
        model = toy()
        with hookline.watch(model, where=where) as run:
            model(X)
        runs.append(run)
    with hookline.watch(toy()) as empty:
        pass

    for pair in (runs, (empty, runs[0])):
        with pytest.raises(CompareError, match=r"nothing to compare.*pass mapping="):
            hookline.diff(*pair)


def test_models_whose_outputs_agree_are_said_to_though_weights_differ() -> None:
    class Held(nn.Module):
        def __init__(self, weight: Tensor, *, turned: bool) -> None:
            super().__init__()
            self.weight, self.turned = nn.Parameter(weight), turned

        def forward(self, x: Tensor) -> Tensor:
            return x @ (self.weight if self.turned else self.weight.t())

    weight = torch.eye(4).roll(1, 0)

    found = hookline.diff(Held(weight, turned=False), Held(weight.t().contiguous(), turned=True), X, grads=False)

    assert not found
    assert found.summary == "Held and Held: outputs agree; no difference in 1 call, though 1 weight differs"
    assert found.weights[0].relation == "transposed"
    assert "weights that differ: weight" in repr(found)


@pytest.mark.parametrize(
    ("tolerances", "says"),
    [
        ({"nope": (9, 9)}, "tolerances: 'nope' matches none of the paths"),
        ({"2.*": (0, 0), "nope.**": (9, 9)}, "tolerances: 'nope.\\*\\*' matches none of the paths"),
        ((math.nan, 0.0), "a tolerance must be 0 or more"),
        ({"2.*": (0.1, -1.0)}, "a tolerance must be 0 or more"),
    ],
)
def test_tolerances_that_mean_nothing_are_refused(tolerances: object, says: str) -> None:
    with pytest.raises(hookline.ArgumentError, match=says):
        differing(tolerances=tolerances)
    runs = recorded(toy(), X), recorded(toy(), X)
    with pytest.raises(hookline.ArgumentError, match=says):
        hookline.diff(*runs, tolerances=tolerances)


def test_weights_of_three_dimensions_in_the_reversed_layout_are_told() -> None:
    model, other = nn.Module(), nn.Module()
    model.weight, other.weight = nn.Parameter(torch.ones(2, 3, 4)), nn.Parameter(torch.ones(4, 3, 2))
    for each in (model, other):
        each.forward = lambda x: x

    found = hookline.diff(model, other, X)

    assert not found
    assert [str(weight) for weight in found.weights] == ["weight differs: shape 2x3x4 vs 4x3x2"]


def test_a_module_of_a_run_that_was_given_another_number_passes_it_on() -> None:
    class Scales(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by, self.s = by, Gives(lambda by: torch.full((2,), by))

        def forward(self, x: Tensor) -> Tensor:
            return self.s(self.by) + x.sum()

    runs = []
    for by in (2.0, 4.0):
        model = Scales(by)
        with hookline.watch(model, keep="copy", inputs="copy") as run, torch.no_grad():
            model(X)
        runs.append(run)

    found = hookline.diff(*runs)

    assert found["s"].is_culprit is None
    assert str(found["s"].inputs["0"]) == "2.0 vs 4.0"
    assert [pair.path for pair in found.culprits] == [""]
    assert "passes s 0 = 2.0 vs 4.0" in found.culprit.why


def test_a_gradient_that_only_one_has_is_a_difference() -> None:
    model = toy()
    other = copy.deepcopy(model)
    other[0].weight.requires_grad_(False)

    found = hookline.diff(model, other, X, grads=True)

    assert [pair.path for pair in found if pair.differs] == ["0"]
    assert str(found["0"].grad_inputs["weight"]) == "only the first has it"
    assert not hookline.diff(other, other, X, grads=True)


def test_worst_of_agreeing_outputs_has_known_figures() -> None:
    one, other = (Gives(lambda x, by=by: (x[:0], x * by, x * math.nan)) for by in (1.0, 1 + 1e-6))

    (pair,) = hookline.diff(one, other, X)

    assert not pair.differs
    assert pair.worst is pair.outputs["1"]


def test_nan_output_is_worst_and_has_no_figures() -> None:
    one, other = (Gives(lambda x, by=by: (x * 1.5, x * by)) for by in (1.0, math.nan))

    found = hookline.diff(one, other, X)

    assert found.pairs[0].worst is found.pairs[0].outputs["1"]
    row = next(line for line in repr(found).splitlines() if line.startswith("Gives  "))
    assert row.partition("CULPRIT")[0].split() == ["Gives", "Gives"]


class SendsBack(nn.Module):
    """Gives what it was given; the first elements of the gradient that it sends back are multiplied."""

    def __init__(self, count: int, by: float) -> None:
        super().__init__()
        self.by = torch.ones(12).index_fill(0, torch.arange(count), by).reshape(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view_as(x)
        if x.requires_grad:
            x.register_hook(lambda grad: grad * self.by)
        return x.view_as(x)


@pytest.mark.parametrize("count", [1, 12], ids=["some", "all"])
def test_module_that_returns_nan_gradient_is_culprit(count: int) -> None:
    runs = []
    for by in (1.0, math.nan):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), SendsBack(count, by), nn.Linear(4, 4))
        with hookline.watch(model, keep="copy", inputs="copy", grads="input") as run:
            model(X).square().sum().backward()
        runs.append(run)

    assert [pair.path for pair in hookline.diff(*runs).culprits] == ["1"]


@pytest.mark.slow
def test_module_that_sums_small_gradients_is_not_blamed() -> None:
    model = hookline.demo.model()
    port = copy.deepcopy(model)
    port.norm.eps = 0.01
    images, labels = hookline.demo.digits()

    def loss(logits: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, labels[:32])

    found = hookline.diff(model, port, images[:32], grads=True, loss=loss)

    assert [pair.path for pair in found.culprits] == ["norm"]


def test_note_says_when_only_shapes_were_compared() -> None:
    model, other = (nn.Linear(4, 2, device="meta") for _ in range(2))

    for found in (hookline.diff(model, other, X), hookline.diff(toy(), with_another_bias(toy()), X, keep="shape")):
        assert not found
        assert any(note.startswith("only shapes were compared") for note in found.notes)
    assert not hookline.diff(toy(), toy(), X).notes


def test_note_names_outputs_that_were_not_compared() -> None:
    class Box:
        def __init__(self, inside: Tensor) -> None:
            self.inside = inside

    model, other = (Gives(lambda x, by=by: Box(x * by)) for by in (1, 5))

    note = "hookline does not look inside, so these are not compared: the"
    assert hookline.diff(model, other, X).notes == (f"{note} Box that the model returns",)
    for iterates in (Gives(lambda x: iter(x)), nn.Sequential(Gives(lambda x: iter(x)))):
        assert note in hookline.diff(iterates, iterates, X).notes[0]


def test_a_model_without_gradients_is_said_to_have_none_to_compare() -> None:
    whole = nn.Sequential(nn.Linear(4, 2), Gives(lambda x: x.argmax(-1)))

    assert hookline.diff(whole, whole, X, grads=True).notes == tuple(
        f"no gradient was seen in the {which}, so there is none to compare" for which in ("first", "second")
    )
    frozen = hookline.diff(toy().requires_grad_(False), toy(), X, grads=True)
    assert frozen.notes[0] == "no gradient was seen in the first, so there is none to compare"
    assert frozen.notes[1].startswith("a gradient is required in the second only: ")


def test_a_frozen_weight_is_told_where_gradients_differ() -> None:
    other = toy()
    other[0].requires_grad_(False)

    found = hookline.diff(toy(), other, X, grads=True)

    assert found.culprit.path == "0"
    assert "a gradient is required in the first only: 0.weight, 0.bias" in found.notes


def test_a_mapping_that_is_none_is_refused() -> None:
    with pytest.raises(hookline.ArgumentError, match=r"mapping must be a dict from paths .*, not \['a'\]"):
        hookline.diff(toy(), toy(), X, mapping=["a"])  # type: ignore[arg-type]


def test_note_names_weights_tied_in_one_model_only() -> None:
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    loose = copy.deepcopy(tied)
    tied[1].weight = tied[0].weight
    loose[1].weight = nn.Parameter(tied[0].weight.detach().clone())
    with torch.no_grad():
        loose[0].weight.copy_(tied[0].weight)

    found = hookline.diff(tied, loose, X, grads=True)

    assert found
    assert found.notes == ("0.weight and 1.weight are one parameter in the first only",)
    assert not hookline.diff(tied, copy.deepcopy(tied), X, grads=True)


def test_gradients_are_compared_inside_of_inference_mode_too() -> None:
    model, other = toy(), with_another_bias(toy())
    with torch.inference_mode():
        x = X.clone()
        found = hookline.diff(model, other, x, grads=True)

    assert found.culprit.path == "2.0"
    assert found["2.0"].grad_inputs

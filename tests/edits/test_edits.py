"""Each edit by itself: what it makes of a tensor, how it prints, compares, is saved and trained."""

import pytest
import torch
from torch import nn

import hookline
from hookline import EditError, StoreError, edits
from hookline.edits import Spot

SPOT = Spot("layer", 0, "output", ())


def changed(edit, tensor, spot=SPOT):
    return edit.change(tensor, spot)


@pytest.fixture
def x():
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


def recorded(model, *inputs, **options):
    with hookline.watch(model, **({"keep": "copy"} | options)) as run:
        for x in inputs:
            model(x)
    return run


# Arithmetic


def test_zero_gives_zeros_also_where_there_was_nan():
    assert changed(edits.zero(), torch.tensor([1.0, float("nan")])).tolist() == [0.0, 0.0]


def test_zero_gives_what_made_the_tensor_gradients_of_zero():
    x = torch.ones(2, requires_grad=True)
    changed(edits.zero(), x * 2).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0]


def test_replace_broadcasts_to_the_tensor(x):
    assert torch.equal(changed(edits.replace([1, 2, 3, 4]), x), torch.tensor([1.0, 2, 3, 4]).expand(2, 3, 4))


def test_replace_gives_a_tensor_of_its_own_that_may_be_changed_in_place(x):
    value = torch.ones(4)
    changed(edits.replace(value), x).mul_(2)
    assert value.tolist() == [1, 1, 1, 1]


def test_replace_that_does_not_fit_says_both_shapes(x):
    with pytest.raises(EditError, match=r"shape \[5\] does not broadcast to a tensor of shape \[2, 3, 4\]"):
        changed(edits.replace(torch.ones(5)), x)


def test_add_adds_the_scaled_vector(x):
    vector = torch.arange(4.0)
    assert torch.equal(changed(edits.add(vector, scale=2), x), x + 2 * vector)


def test_add_takes_the_dtype_of_the_tensor(x):
    assert changed(edits.add(torch.ones(4, dtype=torch.float64)), x.bfloat16()).dtype == torch.bfloat16


def test_add_never_makes_a_tensor_larger():
    with pytest.raises(EditError, match=r"shape \[2, 4\] does not broadcast to a tensor of shape \[4\]"):
        changed(edits.add(torch.ones(2, 4)), torch.ones(4))


def test_add_of_something_that_is_no_tensor_is_an_error():
    with pytest.raises(hookline.ArgumentError, match="vector of edits.add must be a number or a tensor, not 'north'"):
        edits.add("north")


def test_scale_takes_a_number_or_a_tensor(x):
    assert torch.equal(changed(edits.scale(3.0), x), x * 3)
    assert torch.equal(changed(edits.scale([0, 1, 0, 1]), x), x * torch.tensor([0.0, 1, 0, 1]))


def test_clamp_bounds_on_either_side(x):
    assert torch.equal(changed(edits.clamp(min=0), x), x.clamp(min=0))
    assert torch.equal(changed(edits.clamp(-0.1, 0.1), x), x.clamp(-0.1, 0.1))


def test_clamp_without_a_bound_is_an_error():
    with pytest.raises(hookline.ArgumentError, match="clamp needs min="):
        edits.clamp()


def test_noise_is_the_same_in_the_same_call_and_another_in_the_next(x):
    edit = edits.noise(0.1)
    assert torch.equal(changed(edit, x), changed(edit, x))
    assert not torch.equal(changed(edit, x), changed(edit, x, Spot("layer", 1, "output", ())))
    assert not torch.equal(changed(edit, x), changed(edits.noise(0.1, seed=1), x))


def test_noise_has_its_standard_deviation_and_leaves_the_random_state(x):
    before = torch.get_rng_state()
    noise = changed(edits.noise(0.5), torch.zeros(100, 100))
    assert abs(noise.std().item() - 0.5) < 0.02
    assert torch.equal(torch.get_rng_state(), before)


def test_swap_exchanges_places_along_an_axis(x):
    assert torch.equal(changed(edits.swap(0, 1, axis=0), x), x.flip(0))
    assert torch.equal(changed(edits.swap([0, 1], [2, 3]), x), x[..., [2, 3, 0, 1]])


@pytest.mark.parametrize(("first", "second"), [(0, 9), ([0, 1], [1, 2]), ([0], [1, 2])])
def test_a_swap_that_is_none_says_so(x, first, second):
    with pytest.raises(EditError, match="does not fit a tensor of shape|each once"):
        changed(edits.swap(first, second), x)


def test_two_noises_of_a_chain_are_two_noises():
    one, both = (
        changed(edit, torch.zeros(10_000)) for edit in (edits.noise(1.0), edits.noise(1.0) >> edits.noise(1.0))
    )
    assert abs(both.std().item() - 2**0.5 * one.std().item()) < 0.05


# Directions


def test_project_out_leaves_nothing_along_the_directions(x):
    directions = torch.tensor([[1.0, 1, 0, 0], [1.0, 0, 0, 0]])
    left = changed(edits.project_out(directions), x)
    assert torch.allclose(left @ directions.T, torch.zeros(2, 3, 2), atol=1e-6)
    assert torch.allclose(left[..., 2:], x[..., 2:])


def test_project_on_and_project_out_make_up_the_whole(x):
    directions = torch.tensor([[1.0, 2, 3, 4]])
    parts = changed(edits.project_on(directions), x) + changed(edits.project_out(directions), x)
    assert torch.allclose(parts, x, atol=1e-6)


def test_projections_work_in_half_precision(x):
    assert changed(edits.project_out([1.0, 0, 0, 0]), x.half())[..., 0].abs().max() == 0


def test_directions_that_follow_from_others_take_out_no_more_than_they_span():
    x = torch.tensor([[1.0, 2.0, 3.0]])
    assert torch.allclose(changed(edits.project_out([[1.0, 0, 0], [2.0, 0, 0]]), x), torch.tensor([[0.0, 2, 3]]))
    assert torch.allclose(changed(edits.project_on([[1.0, 0, 0], [2.0, 0, 0]]), x), torch.tensor([[1.0, 0, 0]]))


def test_trained_directions_that_follow_from_others_are_an_error():
    with pytest.raises(hookline.ArgumentError, match="can train directions only if they are linearly independent"):
        edits.project_out(nn.Parameter(torch.ones(2, 3)))


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        ([0.0, 0.0], "must not be of length 0"),
        ([1, 2], "floating dtype"),
        ([[[1.0]]], "vector, or a matrix"),
        ("up", "not 'up'"),
    ],
)
def test_directions_that_are_none_are_an_error(directions, message):
    with pytest.raises(hookline.ArgumentError, match=message):
        edits.project_out(directions)


def test_directions_of_another_size_say_so(x):
    with pytest.raises(EditError, match=r"last axis of 3; the tensor is \[2, 3, 4\]"):
        changed(edits.project_on([1.0, 2.0, 3.0]), x)


# Trained ones


def test_a_vector_of_ones_own_is_trained_and_the_model_is_not():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)).requires_grad_(False)
    edit = edits.vector(3)
    optimizer = torch.optim.SGD(edit.parameters(), lr=0.1)
    x = torch.ones(4, 3)
    with hookline.edit(model, "0", output=edit):
        losses = []
        for _ in range(50):
            optimizer.zero_grad()
            loss = (model(x) - 5).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_low_rank_begins_as_no_change_and_both_maps_are_trained(x):
    edit = edits.low_rank.of(4, rank=2)
    assert torch.equal(changed(edit, x), x)
    down, up = edit.parameters()
    changed(edit, x).square().sum().backward()
    assert up.grad.abs().sum() > 0
    with torch.no_grad():
        up += 1
    changed(edit, x).square().sum().backward()
    assert down.grad.abs().sum() > 0


def test_the_parameters_of_a_chain_are_those_of_its_edits_each_once():
    one = edits.vector(3)
    assert len((one >> edits.scale(2.0) >> one >> edits.vector(3)).parameters()) == 2


# From runs


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))


def test_patch_gives_the_value_of_the_same_call(model):
    a, b = torch.randn(2, 4), torch.randn(2, 4)
    run = recorded(model, a, b)
    with hookline.edit(model, "0", output=edits.patch(run)):
        assert torch.equal(model(torch.zeros(2, 4)), model_of(model, a))
        assert torch.equal(model(torch.zeros(2, 4)), model_of(model, b))


def model_of(model, x):
    return model[2](model[1](nn.functional.linear(x, model[0].weight, model[0].bias)))


def test_patch_takes_another_module_and_another_call(model):
    run = recorded(model, torch.ones(2, 4), torch.zeros(2, 4))
    edit = edits.patch(run, path="1", index=1)
    assert torch.equal(changed(edit, torch.ones(2, 4), Spot("0", 0, "output", ())), run["1", 1].output.value)


def test_patch_of_a_call_that_the_run_has_not_says_so(model):
    run = recorded(model, torch.ones(2, 4))
    with hookline.edit(model, "0", output=edits.patch(run)):
        model(torch.ones(2, 4))
        with pytest.raises(hookline.RecordError, match="'0' has 1 call in the run, but none at 1"):
            model(torch.ones(2, 4))


def test_patch_from_a_run_without_tensors_says_what_to_do(model):
    run = recorded(model, torch.ones(2, 4), keep="stats")
    with hookline.edit(model, "0", output=edits.patch(run)), pytest.raises(EditError, match="watch with keep='copy'"):
        model(torch.ones(2, 4))


def test_patch_of_an_input_takes_the_recorded_input(model):
    with hookline.watch(model, keep="copy", inputs="copy") as run:
        expected = model(torch.ones(2, 4))
    with hookline.edit(model, "2", input=edits.patch(run)):
        assert torch.equal(model(torch.zeros(2, 4)), expected)


def test_patch_of_a_gradient_takes_the_recorded_gradient(model):
    with hookline.watch(model, keep="copy", grads=True) as run:
        model(torch.ones(2, 4)).sum().backward()
    expected = [parameter.grad.clone() for parameter in model[0].parameters()]
    model.zero_grad()
    with hookline.edit(model, "1", grad_output=edits.patch(run)):
        (100 * model(torch.ones(2, 4)).sum()).backward()
    assert all(torch.equal(parameter.grad, old) for parameter, old in zip(model[0].parameters(), expected, strict=True))


def test_mean_is_the_mean_over_the_calls_and_the_batch(model):
    run = recorded(model, torch.randn(2, 4), torch.randn(6, 4))
    every = torch.cat([call.output.value for call in run.calls_of("0")])
    new = changed(edits.mean(run), torch.zeros(3, 4), Spot("0", 0, "output", ()))
    assert torch.allclose(new, every.mean(0).expand(3, 4), atol=1e-6)


def test_mean_over_calls_of_different_lengths_asks_for_more_axes():
    model = nn.Sequential(nn.Linear(4, 4))
    run = recorded(model, torch.randn(2, 3, 4), torch.randn(2, 5, 4))
    with pytest.raises(EditError, match=r"take the mean over more axes than over=\(0,\)"):
        changed(edits.mean(run), torch.zeros(2, 3, 4), Spot("0", 0, "output", ()))
    assert changed(edits.mean(run, over=(0, 1)), torch.zeros(2, 9, 4), Spot("0", 0, "output", ())).shape == (2, 9, 4)


def test_a_mean_of_one_example_is_that_over_the_batch(model):
    run = recorded(model, torch.randn(3, 4))
    with hookline.edit(model, "0", output=edits.mean(run), at=1), hookline.watch(model, keep="copy") as edited:
        model(torch.zeros(2, 4))
    assert torch.allclose(edited["0"].output.value[1], run["0"].output.value.mean(0))


def test_resample_of_a_part_takes_that_part_of_whole_examples(model):
    run = recorded(model, torch.randn(8, 4))
    rows = run["0"].output.value[:, 2].tolist()
    with hookline.edit(model, "0", output=edits.resample(run), at=(0, 2)), hookline.watch(model, keep="copy") as edited:
        model(torch.zeros(2, 4))
    assert edited["0"].output.value[0, 2].item() in rows


def test_resample_gives_each_example_what_another_one_had(model):
    run = recorded(model, torch.randn(8, 4))
    rows = [row.tolist() for row in run["0"].output.value]
    drawn = changed(edits.resample(run), torch.zeros(5, 4), Spot("0", 0, "output", ()))
    assert all(row in rows for row in drawn.tolist())
    assert len({tuple(row) for row in drawn.tolist()}) > 1


def test_resample_without_an_example_that_fits_says_what_there_is(model):
    run = recorded(model, torch.randn(1, 4))
    with pytest.raises(EditError, match=r"no example of '0' of shape \[5\]; it has 0: float32\[4\]"):
        changed(edits.resample(run), torch.zeros(2, 5), Spot("0", 0, "output", ()))


# As values


def test_an_edit_prints_what_it_holds():
    assert repr(edits.add(torch.ones(3), scale=2.0)) == "add(vector=float32[3] cpu, scale=2.0)"
    assert repr([edits.zero() >> edits.noise(0.1)]) == "[zero() >> noise(std=0.1, seed=0)]"


def test_edits_compare_by_value_tensors_included():
    assert edits.add(torch.ones(3)) == edits.add(torch.ones(3))
    assert edits.add(torch.ones(3)) != edits.add(torch.zeros(3))
    assert edits.zero() != edits.scale(0.0)
    assert len({edits.add(torch.ones(3)), edits.add(torch.ones(3))}) == 1


def test_an_edit_cannot_be_changed():
    with pytest.raises(AttributeError):
        edits.scale(2.0).factor = 3.0


def test_a_chain_does_one_after_another_and_is_flat(x):
    edit = edits.scale(2.0) >> (edits.add(1.0) >> torch.relu)
    assert torch.equal(changed(edit, x), torch.relu(2 * x + 1))
    assert len(edit.edits) == 3


def test_a_function_that_gives_no_tensor_is_an_error(x):
    with pytest.raises(EditError, match=r"apply\(function=.*\) returned None; it must return the new tensor"):
        changed(edits.apply(lambda tensor: None), x)


SAVED = [
    edits.zero(),
    edits.replace([1.0, 2.0]),
    edits.add(torch.arange(3.0), scale=0.5),
    edits.scale(2),
    edits.scale([1.0, 2.0]),
    edits.clamp(max=1.0),
    edits.noise(0.1, seed=3),
    edits.swap([0, 1], [2, 3], axis=1),
    edits.swap(slice(0, 2), slice(2, 4)),
    edits.clamp(min=float("-inf"), max=3),
    edits.project_out([[1.0, 0.0], [0.0, 1.0]]),
    edits.project_on([1.0, 0.0]),
    edits.low_rank.of(4, rank=1),
    edits.zero() >> edits.add(torch.ones(2)) >> edits.vector(2),
]


@pytest.mark.parametrize("edit", SAVED, ids=repr)
def test_an_edit_is_saved_and_loaded(edit, tmp_path):
    edits.save(edit, tmp_path / "edit")
    assert edits.load(tmp_path / "edit") == edit


def test_a_trained_edit_is_loaded_with_parameters(tmp_path):
    edits.save(edits.vector(3), tmp_path / "edit")
    assert len(edits.load(tmp_path / "edit").parameters()) == 1


def test_an_edit_from_a_run_is_saved_with_the_run(model, tmp_path):
    run = recorded(model, torch.ones(2, 4))
    edits.save(edits.patch(run, index=0) >> edits.mean(run), tmp_path / "edit")
    loaded = edits.load(tmp_path / "edit")
    assert torch.equal(loaded.edits[0].run["0"].output.value, run["0"].output.value)
    assert loaded == edits.patch(run, index=0) >> edits.mean(run)
    assert loaded != edits.patch(recorded(model, torch.zeros(2, 4)), index=0) >> edits.mean(run)


def test_a_parameter_that_two_edits_share_is_loaded_as_one(tmp_path):
    vector = nn.Parameter(torch.ones(3))
    edits.save(edits.add(vector) >> edits.scale(vector), tmp_path / "edit")
    assert len(edits.load(tmp_path / "edit").parameters()) == 1


def test_an_edit_that_is_a_function_cannot_be_saved_and_leaves_nothing(tmp_path):
    with pytest.raises(EditError, match="cannot be saved: only the edits of hookline.edits"):
        edits.save(edits.zero() >> torch.relu, tmp_path / "edit")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("content", ["{}", '{"edit": {"edit": "nosuch"}}', '{"edit": {"edit": "add"}}', '{"edit": 1}'])
def test_a_damaged_edit_says_so(content, tmp_path):
    (tmp_path / "edit.json").write_text(
        content.replace("{", '{"format": "hookline", "version": 1, ', 1).replace(", }", "}")
    )
    with pytest.raises(StoreError):
        edits.load(tmp_path)


# Places


def test_at_names_positions_heads_and_units(x):
    assert torch.equal(x[edits.at(position=-1).index(x)], x[:, -1])
    assert torch.equal(x[edits.at(position=[0, 2]).index(x)], x[:, [0, 2]])
    assert torch.equal(x[edits.at(head=1, heads=2).index(x)], x[..., 2:])
    assert torch.equal(x[edits.at(head=-1, heads=4).index(x)], x[..., 3:])
    assert torch.equal(x[edits.at(head=[0, 3], heads=4).index(x)], x[..., [0, 3]])
    assert torch.equal(x[edits.at(head=range(2), heads=4).index(x)], x[..., :2])
    assert torch.equal(x[edits.at(unit=2).index(x)], x[..., 2])
    assert torch.equal(x[edits.at(position=slice(1, None), head=slice(0, 2), heads=4).index(x)], x[:, 1:, :2])


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"head": 1},
        {"heads": 2},
        {"head": 1, "heads": 2, "unit": 1},
        {"position": [0], "unit": [1]},
        {"head": 0, "heads": 0},
    ],
)
def test_at_says_what_it_needs(wrong):
    with pytest.raises(hookline.ArgumentError, match="edits.at"):
        edits.at(**wrong)


def test_at_that_does_not_fit_the_tensor_says_so(x):
    with pytest.raises(EditError, match="4 units, which do not divide into 3 equal heads"):
        edits.at(head=1, heads=3).index(x)
    for head in (4, [5], -5):
        with pytest.raises(EditError, match="head must be from 0 to 3"):
            edits.at(head=head, heads=4).index(x)
    with pytest.raises(EditError, match=r"tensor of 3 axes or more; this one is \[4\]"):
        edits.at(position=1, unit=2).index(torch.zeros(4))


# One of your own


def test_a_class_of_ones_own_is_an_edit_and_is_told_where_it_is():
    from dataclasses import dataclass

    seen = []

    @dataclass(frozen=True, eq=False, repr=False)
    class Noted(edits.Edit):
        located = True
        factor: float = 2.0

        def change(self, tensor, spot):
            seen.append((spot.path, spot.index, spot.part, spot.keys))
            return tensor * self.factor

    model = nn.Sequential(nn.Identity())
    with hookline.edit(model, "0", output=Noted()):
        assert [model(torch.ones(())).item(), model(torch.ones(())).item()] == [2, 2]
    assert seen == [("0", 0, "output", ()), ("0", 1, "output", ())]
    assert repr(Noted()) == "Noted(factor=2.0)"

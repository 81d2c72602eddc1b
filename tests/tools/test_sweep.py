"""sweep: every place once, the same edit alone, beside an unedited baseline; and it goes on where it stopped."""

import pytest
import torch
from torch import nn

import hookline
from hookline import EditError, StoreError, edits
from hookline.testing import assert_unhooked


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).eval()


BATCHES = [torch.ones(3, 4), torch.zeros(2, 4)]


def total(output, batch):
    return output.sum()


def test_each_place_has_the_metric_with_the_edit_there_alone(model):
    swept = hookline.sweep(model, "*", edits.zero(), total, BATCHES)
    for path in ("0", "1", "2"):
        with hookline.edit(model, path, output=edits.zero()):
            assert swept[path].values == tuple(model(x).sum().item() for x in BATCHES)
    assert swept.baselines == tuple(model(x).sum().item() for x in BATCHES)
    assert swept.change(swept["2"]) == -swept.baseline


def test_patching_everything_restores_the_clean_metric(model):
    corrupted = [x + 1 for x in BATCHES]
    with hookline.watch(model, keep="copy") as clean:
        expected = [model(x).sum().item() for x in BATCHES]
    swept = hookline.sweep(model, "*", edits.patch(clean), total, corrupted)
    assert swept["0"].values == pytest.approx(expected)
    assert swept["2"].values == pytest.approx(expected)
    assert swept.baselines != pytest.approx(expected)


def test_a_second_axis_sweeps_over_parts(model):
    over = [edits.at(unit=0), edits.at(unit=1)]
    swept = hookline.sweep(model, ["0", "1"], edits.zero(), total, BATCHES, over=over)
    assert swept.labels == ["unit=0", "unit=1"]
    assert len(swept) == 4
    with hookline.edit(model, "1", output=edits.zero(), at=(..., 1)):
        assert swept["1", "unit=1"].values == tuple(model(x).sum().item() for x in BATCHES)


def test_inputs_can_be_swept(model):
    swept = hookline.sweep(model, "0", edits.zero(), total, BATCHES, part="input")
    assert swept["0"].values == tuple(model(torch.zeros_like(x)).sum().item() for x in BATCHES)


def test_batches_are_arguments_names_or_what_call_makes_of_them(model):
    expected = hookline.sweep(model, "0", edits.zero(), total, BATCHES).baselines
    assert hookline.sweep(model, "0", edits.zero(), total, [(x,) for x in BATCHES]).baselines == expected
    assert hookline.sweep(model, "0", edits.zero(), total, [{"input": x} for x in BATCHES]).baselines == expected
    pairs = [(x, "label") for x in BATCHES]
    swept = hookline.sweep(model, "0", edits.zero(), total, pairs, call=lambda model, pair: model(pair[0]))
    assert swept.baselines == expected


def test_a_generator_of_batches_is_read_once(model):
    swept = hookline.sweep(model, "*", edits.zero(), total, (x for x in BATCHES))
    assert {len(cell.values) for cell in swept} == {2}


def test_dropout_is_equal_in_every_place_and_state_is_restored():
    model = nn.Sequential(nn.Identity(), nn.Dropout(0.5)).train()
    before = torch.get_rng_state()
    swept = hookline.sweep(model, "0", lambda tensor: tensor, total, [torch.ones(1000)])
    assert swept["0"].values == swept.baselines
    assert torch.equal(torch.get_rng_state(), before)


def test_buffers_are_the_same_in_every_place_and_afterwards():
    model = nn.Sequential(nn.Identity(), nn.BatchNorm1d(4)).train()
    before = model[1].running_mean.clone()
    hookline.sweep(model, "**", edits.scale(2.0), total, [torch.randn(8, 4)])
    assert torch.equal(model[1].running_mean, before)


def test_batches_that_are_others_the_next_time_are_refused(model):
    loader = torch.utils.data.DataLoader(
        torch.randn(64, 4), batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(0)
    )
    with pytest.raises(EditError, match="batch 0 is not what it was the first time"):
        hookline.sweep(model, "*", edits.zero(), total, loader)


def test_two_functions_of_one_name_are_two_edits(model, tmp_path):
    hookline.sweep(model, "0", lambda tensor: tensor * 0, total, BATCHES, save=tmp_path / "sweep")
    with pytest.raises(StoreError, match="a sweep with another edit"):
        hookline.sweep(model, "0", lambda tensor: tensor * 100, total, BATCHES, save=tmp_path / "sweep")


def test_the_model_is_unhooked_afterwards_also_after_an_error(model):
    with pytest.raises(EditError, match="does not broadcast"):
        hookline.sweep(model, "*", edits.replace(torch.ones(3)), total, BATCHES)
    assert_unhooked(model)


def test_the_places_that_changed_most_come_first_and_nan_before_all(model):
    def metric(output, batch):
        return output.sum() if output.abs().max() > 0 else float("nan")

    swept = hookline.sweep(model, "*", edits.zero(), metric, [torch.ones(1, 4)])
    assert [cell.path for cell in swept.top(1)] == ["2"]


def test_modules_that_are_never_called_are_named_and_not_swept():
    model = nn.Sequential(nn.ModuleList([nn.Linear(2, 2)]), nn.Linear(2, 1))
    model.forward = lambda x: model[1](model[0][0](x))
    swept = hookline.sweep(model, ["*", "0.0"], edits.zero(), total, [torch.ones(1, 2)])
    assert swept.paths == ["0.0", "1"]
    assert swept.never_called == ["0"]
    assert "never called: 0" in repr(swept)


# Wrong input


def test_a_metric_that_is_no_number_says_what_it_gave(model):
    with pytest.raises(EditError, match=r"the metric .*<lambda> returned a Tensor of shape \[3, 2\], not a number"):
        hookline.sweep(model, "*", edits.zero(), lambda output, batch: output, BATCHES)


def test_no_batches_and_an_unknown_part_are_errors(model):
    with pytest.raises(hookline.ArgumentError, match="no batches"):
        hookline.sweep(model, "*", edits.zero(), total, [])
    with pytest.raises(hookline.ArgumentError, match="part must be 'input' or 'output', not 'grad_output'"):
        hookline.sweep(model, "*", edits.zero(), total, BATCHES, part="grad_output")
    with pytest.raises(hookline.ArgumentError, match="over must have at least one part, and no two of the same name"):
        hookline.sweep(model, "*", edits.zero(), total, BATCHES, over=[])


# Going on


class Interrupted(Exception):
    pass


ASKED = []
ENOUGH = [0]


def breaking(output, batch):
    """A metric that fails once it was asked often enough."""
    ASKED.append(1)
    if len(ASKED) > ENOUGH[0]:
        raise Interrupted
    return total(output, batch)


def test_an_interrupted_sweep_goes_on_where_it_stopped(model, tmp_path):
    ASKED.clear()
    ENOUGH[0] = 5  # the baseline and one place
    with pytest.raises(Interrupted):
        hookline.sweep(model, "*", edits.zero(), breaking, BATCHES, save=tmp_path / "sweep")
    ASKED.clear()
    ENOUGH[0] = 100
    swept = hookline.sweep(model, "*", edits.zero(), breaking, BATCHES, save=tmp_path / "sweep")
    assert len(ASKED) == 6  # the baseline and two places
    whole = hookline.sweep(model, "*", edits.zero(), total, BATCHES)
    assert [*swept] == [*whole]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("edit", {"edit": edits.add(torch.zeros(4))}),
        ("places", {"where": "0"}),
        ("labels", {"over": {"first": (..., 0)}}),
        ("baseline", {"batches": [torch.ones(3, 4), torch.ones(2, 4)]}),
        ("metric", {"metric": lambda output, batch: output.sum()}),
        ("edit", {"edit": lambda tensor: tensor * 100}),
    ],
)
def test_a_folder_of_another_sweep_is_refused(model, tmp_path, name, change):
    asked = {"where": "*", "edit": edits.add(torch.ones(4)), "metric": total, "batches": BATCHES}
    with pytest.raises(EditError, match="does not broadcast"):
        hookline.sweep(model, **asked, save=tmp_path / "sweep")  # fits the first two places only
    with pytest.raises(StoreError, match=f"a sweep with another {name}"):
        hookline.sweep(model, **(asked | change), save=tmp_path / "sweep")


# Seen


def test_it_prints_a_row_for_each_place(model):
    text = repr(hookline.sweep(model, "*", edits.zero(), total, BATCHES))
    assert "Sequential: metric with zero() in one place at a time; without it" in text
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["0", "1", "2"]


def test_parts_are_a_heat_map_with_signed_figures(model):
    swept = hookline.sweep(model, ["0", "1"], edits.zero(), total, BATCHES, over=[edits.at(unit=i) for i in range(2)])
    text = repr(swept)
    assert "unit=0" in text.splitlines()[1]
    assert all(sign in "+-" for line in text.splitlines()[2:] for sign in (part[0] for part in line.split()[1:]))


def test_in_a_notebook_names_are_text_and_cells_are_coloured(model):
    model.add_module("<b>", nn.Identity())
    html = hookline.sweep(model, "*", edits.zero(), total, BATCHES)._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert "background:rgb(" in html


def test_it_becomes_a_data_frame(model):
    frame = hookline.sweep(model, "*", edits.zero(), total, BATCHES).to_pandas()
    assert [*frame.columns] == ["path", "label", "value", "change"]
    assert [*frame.path] == ["0", "1", "2"]

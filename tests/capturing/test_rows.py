"""Tests of which positions of each example count."""

import pytest
import torch

import hookline
from hookline import ArgumentError, CaptureError

BATCH = {"mask": torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]])}


def of(rows, inputs=BATCH, examples=(0, 1, 2), length=4):
    return [found.tolist() for found in rows.of(inputs, examples, length)]


def test_without_a_mask_every_position_counts():
    assert of(hookline.rows()) == [[0, 1, 2, 3]] * 3


def test_mask_is_an_argument_of_the_model():
    assert of(hookline.rows(mask="mask")) == [[0, 1], [1, 2, 3], []]


def test_positions_count_among_those_of_the_mask():
    assert of(hookline.rows(mask="mask", positions=-1), {"mask": BATCH["mask"][:2]}, (0, 1)) == [[1], [3]]
    assert of(hookline.rows(mask="mask", positions=[0, -1]), {"mask": BATCH["mask"][:2]}, (0, 1)) == [[0, 1], [1, 3]]


def test_position_of_an_empty_example_is_an_error():
    with pytest.raises(CaptureError, match="example 2 has 0 positions that count, and none at -1"):
        of(hookline.rows(mask="mask", positions=-1))


def test_sample_depends_on_the_example_alone():
    rows = hookline.rows(sample=2, seed=7)
    alone = of(rows, {}, [5], 9)

    assert of(rows, {}, [3, 5, 8], 9)[1] == alone[0]
    assert len(alone[0]) == 2
    assert alone[0] == sorted(alone[0])


def test_sample_is_another_for_another_seed_or_example():
    found = {
        tuple(of(hookline.rows(sample=3, seed=seed), {}, [example], 50)[0]) for seed in (0, 1) for example in (0, 1)
    }

    assert len(found) == 4


def test_sample_moves_no_generator():
    before = torch.get_rng_state()
    of(hookline.rows(sample=2))

    assert torch.equal(before, torch.get_rng_state())


def test_sample_of_few_positions_is_all_of_them():
    assert of(hookline.rows(mask="mask", sample=2)) == [[0, 1], of(hookline.rows(mask="mask", sample=2))[1], []]


def test_function_gives_the_mask():
    rows = hookline.rows(lambda inputs: inputs["ids"] != 0)

    assert of(rows, {"ids": torch.tensor([[5, 0, 7, 0]])}, [0]) == [[0, 2]]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"other": 1, 0: 2}, "received no argument 'mask', which rows= takes as the mask; it received other, 0"),
        (
            {"mask": torch.ones(3, 2)},
            r"the mask 'mask' has shape \[3, 2\], and the tensor has 3 examples of 4 positions",
        ),
        ({"mask": [1, 1]}, "the mask 'mask' is a list"),
    ],
)
def test_mask_that_does_not_fit_is_an_error(inputs, message):
    with pytest.raises(CaptureError, match=message):
        of(hookline.rows(mask="mask"), inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": "mask"}, "a mask's name is mask="),
        ({"where": len, "mask": "mask"}, "mask= or a function, not both"),
        ({"positions": 1, "sample": 1}, "positions= or sample=, not both"),
        ({"sample": 0}, "sample must be a whole number from 1, not 0"),
        ({"positions": []}, "positions must be a whole number or several"),
        ({"positions": 1.5}, "positions must be a whole number or several"),
    ],
)
def test_options_that_exclude_each_other_are_an_error(options, message):
    with pytest.raises(ArgumentError, match=message):
        hookline.rows(**options)


def test_rows_print_what_they_were_asked():
    assert repr(hookline.rows(mask="mask", sample=3)) == "rows(mask='mask', sample=3, seed=0)"

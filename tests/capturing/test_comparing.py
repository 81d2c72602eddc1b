"""Two captures compared: what was captured otherwise, which examples both have, which rows differ and by how much."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from capturing.conftest import Make, Tagger, padded, tokens_of
from torch import nn

import hookline
from hookline import ArgumentError, ArgumentTypeError, CaptureDiff
from hookline.capturing import comparing
from hookline.capturing.units import Unit

ROWS = sum(len(tokens_of(number)) for number in range(22))


def shifted(by: float = 0.5, token: int | None = None) -> Tagger:
    """A tagger whose scores, or those of one token, are larger."""
    model = Tagger()
    with torch.no_grad():
        if token is None:
            model.score.bias += by
        else:
            model.embed.weight[token] += by
    return model


def test_same_captures_are_identical(make: Make) -> None:
    found = hookline.diff(make(name="a"), make(name="b"))
    assert not found
    assert isinstance(found, CaptureDiff)
    assert found.signature == {}
    assert [(point.path, point.identical, point.compared) for point in found] == [
        ("embed", True, ROWS),
        ("score", True, ROWS),
    ]
    assert found.summary == "Tagger: 2 points of the same rows, bit for bit"


def test_largest_difference_share_and_first_example_are_found(make: Make) -> None:
    found = hookline.diff(make(name="a", id="name"), make(name="b", id="name", model=shifted(token=14)))
    point = found["embed"]
    wanted = [number for number in range(22) for token in tokens_of(number) if token == 14]
    assert found
    assert point.largest == pytest.approx(0.5)
    assert point.differing == len(wanted)
    assert point.share == pytest.approx(len(wanted) / ROWS)
    assert (point.first, point.first_id) == (wanted[0], f"e{wanted[0]}")
    assert [*found.signature] == ["weights"]
    assert found.summary == "Tagger: other weights; 2 of 2 points differ"


def test_other_units_and_files_compare_row_by_row(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    a = make(name="a")
    write = Unit.write
    monkeypatch.setattr(Unit, "write", lambda unit, folder: write(unit, folder, largest=150))
    b = make(name="b", unit=10)
    monkeypatch.setattr(comparing, "PIECE", 50)
    found = hookline.diff(a, b)
    assert not found
    assert [*found.signature] == ["unit"]
    assert [point.compared for point in found] == [ROWS, ROWS]


def numbered(folder: Path, order: list[int], name: Any = "name", scale: float = 1.0, **asked: Any) -> hookline.Capture:
    """A capture of examples in an order."""
    data = [{"name": f"e{number}", "tokens": tokens_of(number)} for number in order]
    asked = {"rows": hookline.rows(mask="attention_mask"), "batch": 2, "unit": 4, **asked}
    model = Tagger().eval()
    with torch.no_grad():
        model.score.weight *= scale
    return hookline.capture(model, data, "score", to=folder, call=padded, id=name, progress=False, **asked)


def test_examples_are_matched_by_their_ids(tmp_path: Path) -> None:
    found = hookline.diff(numbered(tmp_path / "a", [*range(12)]), numbered(tmp_path / "b", [*range(14)][::-1]))
    assert (found.examples, found.only_a, found.only_b) == (12, 0, 2)
    assert found["score"].identical
    assert found
    assert "2 examples only in the second" in found.summary


def test_ids_that_come_again_are_matched_in_their_order(tmp_path: Path) -> None:
    same = lambda example: "same"
    a, b = (numbered(tmp_path / name, [*range(6)], name=same) for name in "ab")
    found = hookline.diff(a, b)
    assert not found
    assert found["score"].compared == sum(len(tokens_of(number)) for number in range(6))


def test_examples_with_other_rows_are_counted_apart(make: Make) -> None:
    a = make(name="a")
    b = make(name="b", rows=hookline.rows(mask="attention_mask", sample=3))
    found = hookline.diff(a, b)["embed"]
    longer = [number for number in range(22) if len(tokens_of(number)) > 3]
    assert found.other_rows == len(longer)
    assert found.first == longer[0]
    assert found.compared == sum(len(tokens_of(number)) for number in range(22) if number not in longer)


def test_rows_of_other_positions_are_other_rows(make: Make) -> None:
    a = make(name="a", rows=hookline.rows(mask="attention_mask", positions=0))
    b = make(name="b", rows=hookline.rows(mask="attention_mask", positions=-1))
    found = hookline.diff(a, b)["embed"]
    assert found.other_rows == sum(len(tokens_of(number)) > 1 for number in range(22))
    assert found.first == 1


def test_skipped_examples_are_in_none(make: Make) -> None:
    model = shifted(math.nan, token=tokens_of(3)[0])
    found = hookline.diff(make(name="a", errors="skip"), make(name="b", model=model, errors="skip"))
    assert found.only_a > 0
    assert found.examples + found.only_a == 22
    assert all(point.differing == 0 for point in found)


def test_nan_on_one_side_is_the_largest_difference() -> None:
    one, other = torch.tensor([[1.0, math.nan, math.inf]]), torch.tensor([[2.0, math.nan, math.inf]])
    assert comparing.largest_difference(one, other) == 1.0
    assert math.isnan(comparing.largest_difference(one, torch.tensor([[2.0, 0.0, math.inf]])))
    assert comparing.differing_rows(one, one.clone()).tolist() == []
    assert comparing.differing_rows(torch.tensor([[0.0]]), torch.tensor([[-0.0]])).tolist() == [0]


def test_other_dtype_is_compared_by_value(make: Make) -> None:
    found = hookline.diff(make(name="a"), make(name="b", dtype=torch.float64))["score"]
    assert (found.why, found.differing, found.largest) == ("other dtype", 0, 0.0)
    lower = hookline.diff(make(name="a"), make(name="c", dtype=torch.bfloat16))["score"]
    assert lower.dtypes == ("float32", "bfloat16")
    assert 0 < lower.largest < 0.05


def test_other_shape_and_missing_points_are_named(make: Make) -> None:
    model = Tagger()
    model.score = nn.Linear(6, 4)
    found = hookline.diff(make(name="a"), make(name="b", model=model, where="score"))
    assert [(point.path, point.why) for point in found] == [("embed", "only in the first"), ("score", "other shape")]
    assert found["score"].shapes == ((3,), (4,))
    assert "other shape: 3 vs 4" in str(found)
    back = hookline.diff(make(name="b", model=model, where="score"), make(name="a"))
    assert [(point.path, point.why) for point in back] == [("score", "other shape"), ("embed", "only in the second")]


def test_capture_and_something_else_are_not_compared(make: Make) -> None:
    acts = make()
    with pytest.raises(ArgumentTypeError, match="two models, two runs or two captures, not Capture and Tagger"):
        hookline.diff(acts, Tagger())
    with pytest.raises(ArgumentError, match=r"diff\(capture_a, capture_b\) takes nothing else"):
        hookline.diff(acts, acts, where="embed")


def test_table_names_what_was_captured_otherwise_first(make: Make) -> None:
    text = str(hookline.diff(make(name="a"), make(name="b", model=shifted())))
    first, second, *_ = text.splitlines()
    assert first.startswith("Tagger: other weights; 1 of 2 points differ")
    assert second.startswith("other weights: '")
    assert "identical" in text
    assert "22 examples in both" in text


def test_damaged_document_names_the_member(make: Make, tmp_path: Path) -> None:
    hookline.diff(make(name="a"), make(name="b")).save(tmp_path / "saved")
    document = tmp_path / "saved" / "comparison.json"
    document.write_text(document.read_text().replace('"largest": 0.0', '"largest": "much"', 1))
    with pytest.raises(hookline.StoreError, match=r"points\[0\].largest: expected a number"):
        hookline.load(tmp_path / "saved")

"""A capture as a data set of Hugging Face: columns, rows, and values that are not copied."""

import sys
from typing import Any

import pytest
import torch
from capturing.conftest import Make, tokens_of

from hookline import ArgumentError

ROWS = sum(len(tokens_of(number)) for number in range(22))


@pytest.fixture
def arrow() -> Any:
    pytest.importorskip("datasets")
    return pytest.importorskip("pyarrow")


def test_columns_are_points_and_what_is_beside_their_rows(make: Make, arrow: Any) -> None:
    data = make(id="name").datasets()
    assert data.column_names == ["embed", "score", "example", "id", "position", "token"]
    assert len(data) == ROWS
    row = data[3]
    assert (row["example"], row["id"], row["position"], row["token"]) == (2, "e2", 0, tokens_of(2)[0])


def test_values_are_those_of_the_points(make: Make, arrow: Any) -> None:
    acts = make()
    data = acts.datasets().with_format("torch")
    assert torch.equal(data[:]["embed"], torch.cat([*acts["embed"]]))
    assert torch.equal(data[[40, 7]]["score"], torch.cat([*acts["score"]])[[40, 7]])


def test_values_are_not_copied(make: Make, arrow: Any) -> None:
    acts = make(unit=22)
    before = arrow.total_allocated_bytes()
    data = acts.datasets("embed")
    assert arrow.total_allocated_bytes() - before < acts["embed"].nbytes / 4
    (file,) = acts["embed"].files()
    chunk = data.data.column("embed").chunk(0)
    while hasattr(chunk, "flatten"):
        chunk = chunk.flatten()
    assert chunk.buffers()[1].size == file.path.stat().st_size - file.first_value


def test_rows_of_any_shape_are_lists_of_lists(make: Make, arrow: Any) -> None:
    acts = make(rows=None)
    data = acts.datasets("score")
    assert data.column_names == ["score", "example", "id"]
    assert data.data.column("score").type == arrow.list_(arrow.list_(arrow.float32(), 3), 5)
    assert torch.equal(torch.tensor(data[9]["score"]), acts["score"][9])


def test_ids_are_the_numbers_where_none_were_asked_for(make: Make, arrow: Any) -> None:
    data = make().datasets("embed")
    assert data["id"][:] == data["example"][:]


def test_dtype_that_arrow_lacks_is_an_error_or_converted(make: Make, arrow: Any) -> None:
    acts = make(dtype=torch.bfloat16)
    with pytest.raises(ArgumentError, match=r"'embed' is bfloat16, which Arrow lacks; give dtype=torch\.float32"):
        acts.datasets()
    data = acts.datasets("embed", dtype=torch.float16).with_format("torch")
    assert torch.equal(data[:]["embed"], torch.cat([*acts["embed"]]).half())


def test_booleans_are_copied(make: Make, arrow: Any) -> None:
    acts = make(where="embed", keep=lambda output: output > 0)
    assert torch.equal(torch.tensor(acts.datasets()["embed"][:]), torch.cat([*acts["embed"]]))


def test_fingerprint_follows_from_the_content(make: Make, arrow: Any) -> None:
    one, same, other = make(name="a"), make(name="b"), make(21, name="c")
    assert one.datasets()._fingerprint == same.datasets()._fingerprint != other.datasets()._fingerprint
    assert one.datasets("embed")._fingerprint != one.datasets()._fingerprint


def test_data_set_is_mapped_filtered_and_saved(make: Make, arrow: Any, tmp_path: Any) -> None:
    import datasets

    data = make().datasets("score")
    own = data.filter(lambda row: row["example"] == 4)
    assert own["position"][:] == [0, 1, 2, 3, 4]
    data.save_to_disk(tmp_path / "saved")
    assert datasets.load_from_disk(tmp_path / "saved")[5] == data[5]


def test_without_the_library_the_error_says_what_to_install(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'hookline\[datasets\]'"):
        make().datasets()

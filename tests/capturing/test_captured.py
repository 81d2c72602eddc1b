"""What is read back: examples, rows, what is beside them, and what a damaged folder says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from capturing.conftest import Make, Tagger, tokens_of
from safetensors.torch import save_file
from torch import nn

import hookline
from hookline import CaptureError, StoreError
from hookline.capturing.units import Unit


def expected(number: int) -> dict[str, torch.Tensor]:
    model = Tagger().eval()
    with torch.no_grad():
        embedded = model.embed(torch.tensor(tokens_of(number)))
        return {"embed": embedded, "score": model.score(embedded)}


def test_each_example_has_its_rows(make: Make) -> None:
    acts = make()
    for number in range(22):
        for path, rows in expected(number).items():
            torch.testing.assert_close(acts[path][number], rows)


def test_negative_numbers_slices_and_lists_pick_examples(make: Make) -> None:
    point = make()["embed"]
    assert torch.equal(point[-1], point[21])
    assert [len(rows) for rows in point[3:6]] == [4, 5, 1]
    assert [len(rows) for rows in point[[0, 9]]] == [1, 5]
    with pytest.raises(IndexError, match="the capture has 22 examples, and none at 22"):
        point[22]


def test_positions_and_tokens_are_those_of_the_rows(make: Make) -> None:
    point = make()["embed"]
    assert point.positions(8).tolist() == [0, 1, 2, 3]
    assert point.tokens(8).tolist() == tokens_of(8)


def test_without_rows_an_example_is_its_value(make: Make) -> None:
    point = make(rows=None)["embed"]
    assert point[3].shape == (5, 6)
    with pytest.raises(CaptureError, match="captured without rows="):
        point.positions(3)
    with pytest.raises(CaptureError, match="has no token ids"):
        point.tokens(3)


def test_rows_read_are_of_their_own(make: Make) -> None:
    point = make()["embed"]
    point[0].zero_()
    assert point[0].abs().sum() > 0


def test_iteration_leaves_skipped_examples_out(make: Make) -> None:
    model = Tagger()
    with torch.no_grad():
        model.embed.weight[tokens_of(6)[0]] = float("nan")
    acts = make(model=model, errors="skip")
    assert 6 in acts.skipped
    assert len([*acts["score"]]) == 22 - len(acts.skipped)
    with pytest.raises(CaptureError, match="example 6 was skipped: CaptureError"):
        acts["score"][6]


def test_ids_are_read_when_they_are_asked_for(make: Make) -> None:
    acts = make(id="name")
    assert all(record["ids"] is None for record in acts.records.values())
    assert acts.ids == [f"e{number}" for number in range(22)]
    assert make(name="numbers").ids == [*range(22)]


def test_missing_unit_is_named(make: Make, tmp_path: Path) -> None:
    make()
    (tmp_path / "acts" / "units" / "000002.json").unlink()
    acts = hookline.open(tmp_path / "acts")
    assert acts.missing == [2]
    assert not acts.finished
    assert acts["embed"][0].shape == (1, 6)
    with pytest.raises(CaptureError, match="example 9 is not captured yet: unit 2 is missing"):
        acts["embed"][9]


def in_small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units are cut into files of two examples or so."""
    write = Unit.write
    monkeypatch.setattr(Unit, "write", lambda unit, folder: write(unit, folder, largest=200))


def test_unit_in_several_files_reads_as_one(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make(name="whole")
    in_small_files(monkeypatch)
    cut = make(name="cut")
    assert len(cut.files) > 2 * len(whole.files)
    for path in ("embed", "score"):
        assert all(torch.equal(cut[path][number], whole[path][number]) for number in range(22))
        assert torch.equal(torch.from_numpy(cut[path].numpy()), torch.from_numpy(whole[path].numpy()))


# Arrays


@pytest.fixture
def numpy() -> Any:
    return pytest.importorskip("numpy")


def test_one_file_is_mapped_without_a_copy(make: Make, numpy: Any) -> None:
    point = make(unit=22, batch=2)["embed"]
    array = point.numpy()
    assert isinstance(array, numpy.memmap)
    assert not array.flags.writeable
    assert numpy.array_equal(array, torch.cat([*point]).numpy())


def test_several_files_are_one_array(make: Make, numpy: Any) -> None:
    point = make()["embed"]
    array = point.numpy()
    assert array.flags.writeable
    assert numpy.array_equal(array, torch.cat([*point]).numpy())


def test_dtype_that_numpy_lacks_becomes_float32(make: Make, numpy: Any) -> None:
    for dtype in (torch.bfloat16, torch.float8_e4m3fn):
        point = make(name=f"{dtype}", dtype=dtype)["embed"]
        assert point.dtype == dtype
        assert point.numpy().dtype == numpy.float32
        assert numpy.array_equal(point.numpy(), torch.cat([*point]).float().numpy())


def test_mapped_parts_are_all_rows(make: Make) -> None:
    point = make()["score"]
    assert torch.equal(torch.cat([*point.parts()]), torch.cat([*point]))


def test_data_frame_has_a_row_for_each_row(make: Make) -> None:
    pytest.importorskip("pandas")
    frame = make(id="name")["embed"].to_pandas()
    assert [*frame.columns] == ["example", "id", "position", "token", *range(6)]
    own = frame[frame["example"] == 8]
    assert own["id"].unique().tolist() == ["e8"]
    assert own["position"].tolist() == [0, 1, 2, 3]
    assert own["token"].tolist() == tokens_of(8)
    assert len(frame) == sum(len(tokens_of(number)) for number in range(22))


def test_data_frame_without_rows_has_no_positions(make: Make) -> None:
    pytest.importorskip("pandas")
    frame = make(rows=None)["score"].to_pandas()
    assert [*frame.columns][:3] == ["example", "id", 0]
    assert frame.shape == (22, 2 + 15)


def test_without_pandas_the_error_of_a_point_says_what_to_install(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'hookline\[data\]'"):
        make()["embed"].to_pandas()


def test_sample_is_of_all_over_the_rows(make: Make) -> None:
    point = make(100)["embed"]
    few, all_ = point.sample(60), point.sample()
    assert few.numel() == 60
    assert 0 < all_.numel() <= point.rows * 6
    assert {*few.tolist()} <= {*torch.cat([*point]).flatten().tolist()}


# Saving and loading


def test_load_opens_a_capture(make: Make, tmp_path: Path) -> None:
    acts = make()
    assert hookline.load(tmp_path / "acts").to_dict() == acts.to_dict()


def test_saved_copy_reads_as_the_original(make: Make, tmp_path: Path) -> None:
    acts = make(id="name")
    (tmp_path / "acts" / "data" / "left-over").write_text("of a killed process")
    acts.save(tmp_path / "copy")
    copy = hookline.open(tmp_path / "copy")
    assert copy.ids == acts.ids
    assert torch.equal(torch.cat([*copy["embed"]]), torch.cat([*acts["embed"]]))
    assert not (tmp_path / "copy" / "data" / "left-over").exists()


def test_saving_refuses_a_folder_with_more_in_it(make: Make, tmp_path: Path) -> None:
    acts = make()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(StoreError, match="exists and is not a saved capture"):
        acts.save(tmp_path / "other")


# Damage


def damaged(folder: Path) -> Path:
    """The first data file of the capture in a folder."""
    return min((folder / "data").glob("*.safetensors"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "is missing, which the record of its unit names"),
        (lambda path: path.write_bytes(path.read_bytes()[:-8]), "bytes, its record says"),
        (lambda path: path.write_bytes(b"\xff" * path.stat().st_size), "its header is too long"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"{", b"[", 1)), "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"values", b"valuez")), "it has no values"),
    ],
)
def test_damaged_file_is_named(make: Make, tmp_path: Path, spoil: Any, message: str) -> None:
    acts = make()
    spoil(damaged(tmp_path / "acts"))
    with pytest.raises(StoreError, match=message):
        acts["embed"][0]


def test_offsets_that_do_not_fit_are_damage(make: Make, tmp_path: Path) -> None:
    acts = make()
    path = damaged(tmp_path / "acts")
    size = path.stat().st_size
    save_file({"values": torch.zeros(2, 6), "offsets": torch.tensor([0, 1])}, path)
    record = json.loads((tmp_path / "acts" / "units" / "000000.json").read_text())
    assert record["points"]["embed"]["files"][0]["bytes"] == size
    record["points"]["embed"]["files"][0] |= {"bytes": path.stat().st_size, "examples": 1, "rows": 1}
    (tmp_path / "acts" / "units" / "000000.json").write_text(json.dumps(record))
    acts = hookline.open(tmp_path / "acts")
    with pytest.raises(StoreError, match="not of the length that its offsets say"):
        acts["embed"][0]


# Memory

READ = """
import sys, torch, hookline
def now():
    told = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    return [int(told[name].split()[0]) / 1024 for name in ("RssAnon", "VmRSS")]
acts = hookline.open(sys.argv[2])  # what is imported on demand is imported
[*acts[0].files()]
acts[0][0]
before = now()
acts = hookline.open(sys.argv[1])
point = acts[0]
assert sum(float(point[number].sum()) for number in range(0, len(point), 3)) >= 0
print(*(round(after - first, 1) for after, first in zip(now(), before)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_opening_and_reading_examples_keeps_no_memory(make: Make, tmp_path: Path) -> None:
    make(4)
    model = Tagger()
    model.score = nn.Linear(6, 20_000)
    acts = make(400, name="large", model=model, where=["score"], unit=100, batch=10)
    assert acts["score"].nbytes > 90e6
    command = [sys.executable, "-c", READ, str(tmp_path / "large"), str(tmp_path / "acts")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(float(each) < 50 for each in done.stdout.split()), done.stdout


@pytest.mark.parametrize("examples", [[3, 1], range(3, 0, -2), (3, 1), torch.tensor([3, 1])], ids=repr)
def test_several_examples_are_a_list(make: Make, examples: Any) -> None:
    point = make()["embed"]
    assert [*map(torch.Tensor.tolist, point[examples])] == [point[3].tolist(), point[1].tolist()]


def test_array_of_numbers_picks_examples(make: Make, numpy: Any) -> None:
    point = make()["embed"]
    assert [*map(len, point[numpy.array([2])])] == [len(point[2])]
    assert point[numpy.int64(2)].tolist() == point[2].tolist()


def test_mask_picks_examples(make: Make, numpy: Any) -> None:
    point = make()["embed"]
    mask = numpy.arange(len(point)) == 2
    assert [*map(torch.Tensor.tolist, point[mask])] == [point[2].tolist()]
    assert [*map(torch.Tensor.tolist, point[[*mask]])] == [point[2].tolist()]
    with pytest.raises(IndexError, match="a mask of 1 for a capture of"):
        point[[True]]


def test_number_of_examples_must_be_whole(make: Make) -> None:
    with pytest.raises(TypeError):
        make()["embed"][[1.5]]

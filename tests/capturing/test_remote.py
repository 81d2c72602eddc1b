"""A capture in an object store: that of fsspec in memory, which has no names to exchange and no links."""

import json
import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import hookline
from hookline import CaptureError, StoreError
from hookline.capturing import remote
from hookline.capturing.remote import RemoteFolder

fsspec = pytest.importorskip("fsspec")
URL = "memory://acts"
X = torch.arange(60.0).reshape(20, 3) / 60


@pytest.fixture(autouse=True)
def store() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").rm("/", recursive=True)


@pytest.fixture
def line() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh()).eval()


def capture(model: nn.Module) -> hookline.Capture:
    return hookline.capture(model, X, "0", to=URL, batch=2, unit=4, progress=False)


def test_what_is_written_is_read_back(line: nn.Module) -> None:
    capture(line)

    acts = hookline.open(URL)
    assert acts.finished
    torch.testing.assert_close(torch.stack([*acts["0"]]), line[0](X).detach())  # type: ignore[operator,index]


def test_files_are_those_of_a_folder(line: nn.Module, tmp_path) -> None:  # type: ignore[no-untyped-def]
    hookline.capture(line, X, "0", to=tmp_path / "here", batch=2, unit=4, progress=False)
    capture(line).save(tmp_path / "there")

    names = {path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*") if path.is_file()}
    assert all((tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes() for name in names)


def test_missing_unit_is_done_again(line: nn.Module) -> None:
    capture(line)
    RemoteFolder(URL).remove(["units/000002.json"])
    assert hookline.open(URL).missing == [2]

    assert capture(line).finished


def test_record_that_is_there_is_not_replaced() -> None:
    folder = RemoteFolder(URL)

    assert folder.commit("units/0.json", b"one")
    assert not folder.commit("units/0.json", b"other")
    assert folder.read("units/0.json") == b"one"


def test_unit_that_another_took_is_free_after_a_while() -> None:
    folder = RemoteFolder(URL)
    lease = folder.lease("000001")

    assert lease is not None
    assert folder.lease("000001") is None
    folder.put("leases/000001", [json.dumps({"time": time.time() - 1000}).encode()])
    assert folder.lease("000001") is not None


def test_data_that_no_record_names_is_removed(line: nn.Module) -> None:
    capture(line)
    RemoteFolder(URL).put("data/stray", [b"x"])
    capture(line)

    assert "stray" not in RemoteFolder(URL).names("data")


def test_other_capture_is_named(line: nn.Module) -> None:
    capture(line)
    with pytest.raises(CaptureError, match="memory://acts holds a capture of other modules"):
        hookline.capture(line, X, "1", to=URL, batch=2, unit=4, progress=False)


def test_nothing_there_is_an_error() -> None:
    with pytest.raises(StoreError, match="memory://acts holds no capture"):
        hookline.open(URL)


def test_store_that_is_not_known_is_an_error() -> None:
    with pytest.raises(StoreError, match="cannot reach nothing://x"):
        hookline.open("nothing://x")


def test_rows_of_a_store_are_shuffled_a_file_at_a_time(line: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    data = capture(line).torch(batch=3, buffer=100)
    fetched = []
    local = RemoteFolder.local
    monkeypatch.setattr(RemoteFolder, "local", lambda folder, name: fetched.append(name) or local(folder, name))
    rows = torch.cat([*data])

    wanted = line[0](X).detach()  # type: ignore[operator,index]
    assert not torch.allclose(rows, wanted)
    torch.testing.assert_close(rows.sort(dim=0).values, wanted.sort(dim=0).values)
    changes = [name for name, before in zip(fetched, [None, *fetched], strict=False) if name != before]
    assert len(changes) == len({*changes}) == 5


def test_example_is_read_though_its_file_was_forgotten(line: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "KEPT", 1)
    point = capture(line)["0"]
    first = point[0]
    assert len([*point]) == 20
    assert torch.equal(point[0], first)


def test_threads_read_what_others_made_room_for(line: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "KEPT", 1)
    capture(line)
    point = hookline.open(URL)["0"]
    expected = line[0](X).detach()  # type: ignore[operator,index]

    def is_right(number: int) -> bool:
        return torch.allclose(point[number], expected[number])  # type: ignore[index]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(is_right, [*range(20)] * 20))


def test_capture_of_a_store_can_be_sent_to_a_process(line: nn.Module) -> None:
    point = pickle.loads(pickle.dumps(capture(line)))["0"]
    torch.testing.assert_close(point[3], line[0](X)[3].detach())  # type: ignore[operator,index]


def test_store_with_units_and_no_capture_is_refused(line: nn.Module) -> None:
    capture(line)
    fsspec.filesystem("memory").rm_file("/acts/capture.json")
    with pytest.raises(StoreError, match=r"holds units/000000.json and no capture; give an empty or a new folder"):
        hookline.capture(line, X + 1, "0", to=URL, batch=2, unit=4, progress=False)


def test_data_of_a_process_that_works_meanwhile_stays(line: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    capture(line)
    folder, names = RemoteFolder(URL), RemoteFolder.names

    def meanwhile(self: RemoteFolder, within: str) -> list[str]:
        found = names(self, within)
        if within == "leases":  # another process begins a unit just then
            self.put("data/000009.0.aaaaaaaaaaaa.safetensors", [b"x"])
        return found

    monkeypatch.setattr(RemoteFolder, "names", meanwhile)
    folder.sweep(lambda: hookline.open(URL).files)

    assert folder.read("data/000009.0.aaaaaaaaaaaa.safetensors") == b"x"


def test_data_of_a_process_that_ends_meanwhile_stays(line: nn.Module) -> None:
    capture(line)
    folder = RemoteFolder(URL)
    record = folder.read("units/000001.json")
    folder.remove(["units/000001.json"])

    def read() -> set[str]:
        assert record is not None
        folder.commit("units/000001.json", record)
        return hookline.open(URL).files

    folder.sweep(read)

    assert hookline.open(URL).damaged() == []

"""Tests of a file of text: written whole or not at all, and never over what is not a file."""

import os
from pathlib import Path

import pytest

from hookline import StoreError
from hookline.store.file import expect_file, write_text
from hookline.store.staging import staging


def test_a_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("old")

    write_text(tmp_path / "page", "new")

    assert (tmp_path / "page").read_text() == "new"
    assert os.listdir(tmp_path) == ["page"]


def test_a_file_may_be_read_as_any_new_file_may(tmp_path: Path) -> None:
    write_text(tmp_path / "page", "new")
    (tmp_path / "other").touch()

    assert (tmp_path / "page").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_through_a_link_the_file_behind_it_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("page")

    write_text(tmp_path / "link", "new")

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "page").read_text() == "new"


def test_a_lone_surrogate_is_written_as_its_escape(tmp_path: Path) -> None:
    write_text(tmp_path / "page", "\ud800")

    assert (tmp_path / "page").read_text() == r"\ud800"


def test_a_name_of_255_characters_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("x" * 255), "new")

    assert (tmp_path / ("x" * 255)).read_text() == "new"


def special(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "special"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/null")
    else:
        path.mkdir()
    return path


@pytest.mark.parametrize("write", [expect_file, lambda path: write_text(path, "new")], ids=["expect", "write"])
@pytest.mark.parametrize(("kind", "said"), [("pipe", "a named pipe"), ("device", "a device"), ("folder", "a folder")])
def test_what_is_not_a_file_is_not_replaced(tmp_path: Path, kind: str, said: str, write) -> None:
    with pytest.raises(StoreError, match=f"cannot write .*: it is {said}"):
        write(special(tmp_path, kind))


BAD_NAMES = {"long": "x" * 300, "NUL": "a\0b", "surrogate": "a\ud800b", "deep": "x/" * 3000}


@pytest.mark.parametrize("write", [expect_file, lambda path: write_text(path, "new")], ids=["expect", "write"])
@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_name_that_no_file_can_have_is_one_error(tmp_path: Path, name: str, write) -> None:
    with pytest.raises(StoreError, match="cannot be the name of a file or folder: ") as caught:
        write(tmp_path / name)

    assert len(str(caught.value)) < 250


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    with staging(tmp_path / "page") as folder:
        prefix = folder.name[:-8]
    (tmp_path / f"{prefix}killed00").mkdir()

    write_text(tmp_path / "page", "new")

    assert os.listdir(tmp_path) == ["page"]

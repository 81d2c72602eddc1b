"""The folder of a capture: data that is there whole or not at all, records that are written once, leases.

    capture.json            what is captured, and how: written once
    units/000012.json       the record of a unit of work: written once, when all its data is there
    data/000012.0.ab12cd34ef56.safetensors     data of a unit, named by its digest
    leases/000012           who works at a unit now

Readers believe records only. A process that is killed leaves data that no record names, which the next one removes.
"""

import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from hookline.errors import StoreError
from hookline.store.file import on_disk
from hookline.store.opening import path_of, reason

HEARTBEAT = 5.0  # seconds between two signs of life of a lease
FOLDERS = {"units", "data", "leases"}
OURS = FOLDERS | {"capture.json", "end.json"}  # all that is in the folder of a capture
DATA = re.compile(r"\d{6,}\.\d+(-\d+)?\.[0-9a-f]{12}\.safetensors$")
BEGUN = re.compile(r"\.(\d{6,}|capture\.json-|end\.json-|now-)")  # what a process writes before it has its name
EXPIRES = 60.0  # seconds after the last sign of life
Pieces: TypeAlias = Iterable[bytes | memoryview]
"""The content of a file, in pieces."""


class Folder(Protocol):
    """Where a capture lies: files of a local or shared file system, or objects of a store."""

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""
        ...

    def names(self, within: str) -> list[str]:
        """The names of the files in one of the folders, sorted."""
        ...

    def sizes(self, within: str) -> dict[str, int]:
        """The length in bytes of each file in one of the folders."""
        ...

    def put(self, name: str, pieces: Pieces) -> None:
        """Write a file, whole or not at all. One of that name has that content already."""
        ...

    def commit(self, name: str, content: bytes) -> bool:
        """Write a file if there is none; False, and nothing done, where there is one."""
        ...

    def lease(self, unit: str) -> "Lease | None":
        """Take a unit of work; None where another process is at it."""
        ...

    def local(self, name: str) -> Path:
        """A path under which a file can be mapped into memory."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Remove files."""
        ...

    def create(self) -> None:
        """Make it; StoreError where that cannot be."""
        ...

    def sweep(self, named: Callable[[], set[str]]) -> None:
        """Remove data that is not among those named, and what killed processes left."""
        ...


class Lease:
    """One unit of work that this process has taken, until `end()`. While it lasts the file shows a sign of life every
    few seconds. It is lost where another process took this one for dead; work that is done twice does no harm."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        if path is not None:
            _alive.add(path)

    def end(self) -> None:
        """Give it back."""
        if self.path is not None:
            _alive.discard(self.path)
            with suppress(OSError):
                self.path.unlink()
            self.path = None

    __del__ = end  # an interrupt may come before anybody holds it


class LocalFolder:
    """A capture in a folder of a file system that has names of its own: on this machine, or shared by several."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.root = path_of(folder)
        self.expires = EXPIRES

    def __str__(self) -> str:
        return str(self.root)

    def create(self) -> None:
        """Make the folder; StoreError where that cannot be, or where it holds something else."""
        try:
            self._expect_ours()
            for within in ("units", "data", "leases"):
                (self.root / within).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot capture to {self.root}: {reason(error)}") from error

    def _expect_ours(self) -> None:
        """StoreError where the folder holds anything but a capture, or one that has just begun."""
        if not self.root.is_dir() or (self.root / "capture.json").exists():
            return
        strange = [name for name in sorted(os.listdir(self.root)) if name not in OURS and not BEGUN.match(name)]
        for within in FOLDERS:
            if (self.root / within).is_dir():
                strange += [f"{within}/{name}" for name in os.listdir(self.root / within) if not BEGUN.match(name)]
        if strange:
            raise StoreError(f"{self.root} holds {strange[0]} and no capture; give an empty or a new folder")

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"cannot read {self.root / name}: {reason(error)}") from error

    def names(self, within: str) -> list[str]:
        """The names of the files in one of the folders, sorted."""
        try:
            return sorted(name for name in os.listdir(self.root / within) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StoreError(f"cannot read {self.root / within}: {reason(error)}") from error

    def sizes(self, within: str) -> dict[str, int]:
        """The length in bytes of each file in one of the folders."""
        found = {}
        try:
            for entry in os.scandir(self.root / within):
                with suppress(FileNotFoundError):  # removed since
                    found[entry.name] = entry.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise StoreError(f"cannot read {self.root / within}: {reason(error)}") from error
        return found

    def put(self, name: str, pieces: Pieces) -> None:
        """Write a file, whole or not at all."""
        with self._writing(name, pieces) as beside:
            os.replace(beside, self.root / name)
            on_disk((self.root / name).parent)

    def commit(self, name: str, content: bytes) -> bool:
        """Write a file if there is none: a link never replaces, as a rename does."""
        target = self.root / name
        with self._writing(name, [content]) as beside:
            try:
                os.link(beside, target)
            except FileExistsError:
                return False
            except OSError:  # a file system without links: the content is the same whoever writes it
                if target.exists():
                    return False
                os.replace(beside, target)
            on_disk(target.parent)
        return True

    def _writing(self, name: str, pieces: Pieces) -> "_Beside":
        return _Beside(self.root / name, pieces)

    def lease(self, unit: str) -> Lease | None:
        """Take a unit of work; None where a process that is alive is at it."""
        path = self.root / "leases" / unit
        holder = json.dumps(who()).encode()
        for _ in range(2):
            try:
                if self._create(path, holder):
                    return Lease(path)
                if not self._is_dead(path):
                    return None
                with suppress(FileNotFoundError):  # whoever renames it first has ended it
                    os.rename(path, path.with_name(f".{unit}-{uuid.uuid4().hex}"))
            except OSError as error:
                raise StoreError(f"cannot capture to {self.root}: {reason(error)}") from error
        return None

    def _create(self, path: Path, content: bytes) -> bool:
        """Make a small file with its content, in one step where the file system has links; False where it exists."""
        beside = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
        beside.write_bytes(content)
        try:
            os.link(beside, path)
        except FileExistsError:
            return False
        except OSError:
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                return False
            path.write_bytes(content)
        finally:
            beside.unlink()
        return True

    def _is_dead(self, path: Path) -> bool:
        """Whether the process that holds a lease is gone: as the system says of one on this machine, else by the age of
        its last sign of life, on the file system's own clock."""
        try:
            told = path.stat().st_mtime
            holder = json.loads(path.read_text(encoding="utf-8") or "{}")
        except FileNotFoundError:
            return True
        except (OSError, ValueError):
            holder = {}
        if holder == who() and path not in _alive.paths:
            return True  # of this process, which has dropped it
        if holder.get("host") == who()["host"] and _started(holder.get("pid", 0)) != holder.get("started"):
            return True
        return self._now() - told > self.expires

    def _now(self) -> float:
        probe = self.root / "leases" / f".now-{who()['host']}-{os.getpid()}"
        probe.touch()
        return probe.stat().st_mtime

    def local(self, name: str) -> Path:
        """The file."""
        return self.root / name

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; one that is gone, or cannot be removed, is left."""
        for name in names:
            with suppress(OSError):
                (self.root / name).unlink()

    def sweep(self, named: Callable[[], set[str]]) -> None:
        """Remove what killed processes left: data that no record names, and what they had begun to write. Nothing
        while another process is at a unit.

        - `named`: reads what the records name. What is there is listed first, then the leases, then the records: data
          that is listed either has a process at it or a record by then.
        """
        own = [f"data/{name}" for name in self.names("data") if DATA.match(name)]
        if any(not self._is_dead(self.root / "leases" / unit) for unit in self.names("leases")):
            return
        there = named()
        self.remove(name for name in own if name not in there)
        for within in ("data", "units", "leases", "."):
            with suppress(OSError):
                begun = [name for name in os.listdir(self.root / within) if BEGUN.match(name)]
                self.remove(f"{within}/{name}" for name in begun)
        self.remove(f"leases/{unit}" for unit in self.names("leases"))


class _Beside:
    """A file beside its place, on the disk with all its content, until it has its name."""

    def __init__(self, target: Path, pieces: Pieces) -> None:
        self.target, self.pieces = target, pieces
        self.beside = target.with_name(f".{target.name}-{who()['host']}-{os.getpid()}-{threading.get_ident()}")

    def __enter__(self) -> Path:
        try:
            with open(self.beside, "wb") as file:
                for piece in self.pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                self.beside.unlink()
            raise StoreError(f"cannot write {self.target}: {reason(error)}") from error
        return self.beside

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        with suppress(OSError):
            self.beside.unlink()
        if isinstance(error, OSError):
            raise StoreError(f"cannot write {self.target}: {reason(error)}") from error


class _Alive:
    """Shows signs of life of the leases that this process holds, on a thread that runs while there are any."""

    def __init__(self) -> None:
        self.paths: set[Path] = set()
        self.changed = threading.Condition()
        self.thread: threading.Thread | None = None
        self.pid = os.getpid()

    def add(self, path: Path) -> None:
        with self.changed:
            if self.pid != os.getpid():  # a fork has its parent's leases, and no thread
                self.paths, self.thread, self.pid = set(), None, os.getpid()
            self.paths.add(path)
            if self.thread is None:
                self.thread = threading.Thread(target=self._beat, name="hookline leases", daemon=True)
                self.thread.start()

    def discard(self, path: Path) -> None:
        with self.changed:
            self.paths.discard(path)
            self.changed.notify()

    def _beat(self) -> None:
        while True:
            with self.changed:
                if not self.paths:
                    self.changed.wait(HEARTBEAT)
                if not self.paths:
                    self.thread = None
                    return
                paths = [*self.paths]
            for path in paths:
                with suppress(OSError):
                    os.utime(path)
            time.sleep(HEARTBEAT)


_alive = _Alive()


def who() -> dict[str, Any]:
    """Who this process is: its machine, its number there, and when it began."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}


def _started(pid: int) -> int | None:
    """When a process of this machine began, in the system's own count: a number that is given again to another process
    has another. 0 where the system does not tell, None where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(stat.rpartition(")")[2].split()[19])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, ValueError, IndexError):
        return 0
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:
        return 0
    return 0


def is_url(folder: str | os.PathLike[str]) -> bool:
    """Whether a place is an fsspec URL, such as "s3://bucket/acts", and no path."""
    return isinstance(folder, str) and "://" in folder and not folder.startswith("file://")


def folder_of(place: str | os.PathLike[str]) -> Folder:
    """The folder at a path or an fsspec URL."""
    if is_url(place):
        from hookline.capturing.remote import RemoteFolder

        return RemoteFolder(str(place))
    return LocalFolder(str(place).removeprefix("file://") if isinstance(place, str) else place)

"""A capture in an object store, by fsspec: data first, then the record by a write that makes and never replaces."""

import json
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hookline.capturing.folder import Lease, Pieces, who
from hookline.errors import StoreError

EXPIRES = 600.0  # seconds after which a unit that was begun may be begun by another
KEPT = 8  # files that were read and lie on this machine, at most


class RemoteFolder:
    """A capture at an fsspec URL, such as "s3://bucket/acts".

    A store has no signs of life: who takes a unit writes so, and after ten minutes another may take it too. Work that
    is done twice does no harm.
    """

    def __init__(self, url: str) -> None:
        try:
            import fsspec  # type: ignore[import-untyped]
        except ImportError as error:
            raise ImportError(f"{url} needs fsspec: pip install 'hookline[remote]'") from error
        self.url = url.rstrip("/")
        try:
            self.system, self.root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise StoreError(f"cannot reach {url}: {error}") from error
        self._here: dict[str, Path] = {}
        self._fetching = threading.Lock()
        self._folder: Path | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process has copies of its own."""
        return type(self), (self.url,)

    def __str__(self) -> str:
        return self.url

    def create(self) -> None:
        """StoreError where it holds something else; a store makes its folders by itself."""
        if self.read("capture.json") is not None:
            return
        strange = next((f"{within}/{name}" for within in ("units", "data") for name in self.names(within)), None)
        if strange is not None and self.read("capture.json") is None:  # another process may have begun since
            raise StoreError(f"{self.url} holds {strange} and no capture; give an empty or a new folder")

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""
        try:
            content: bytes = self.system.cat_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return None
        except Exception as error:
            raise StoreError(f"cannot read {self.url}/{name}: {error}") from error
        return content

    def names(self, within: str) -> list[str]:
        """The names of the files in one of the folders, sorted."""
        return sorted(self.sizes(within))

    def sizes(self, within: str) -> dict[str, int]:
        """The length in bytes of each file in one of the folders."""
        try:
            found = self.system.ls(f"{self.root}/{within}", detail=True, refresh=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise StoreError(f"cannot read {self.url}/{within}: {error}") from error
        return {each["name"].rsplit("/", 1)[1]: int(each["size"] or 0) for each in found}

    def put(self, name: str, pieces: Pieces) -> None:
        """Write a file, whole or not at all, as a store does."""
        try:
            self.system.pipe_file(f"{self.root}/{name}", b"".join(pieces))
        except Exception as error:
            raise StoreError(f"cannot write {self.url}/{name}: {error}") from error

    def commit(self, name: str, content: bytes) -> bool:
        """Write a file if there is none; False where there is one."""
        try:
            self.system.pipe_file(f"{self.root}/{name}", content, mode="create")
        except FileExistsError:
            return False
        except Exception as error:
            raise StoreError(f"cannot write {self.url}/{name}: {error}") from error
        return True

    def lease(self, unit: str) -> Lease | None:
        """Take a unit of work; None where another process took it a short while ago."""
        name = f"leases/{unit}"
        content = json.dumps({**who(), "time": time.time()}).encode()
        if not self.commit(name, content):
            with suppress(ValueError, KeyError, TypeError):
                if time.time() - json.loads(self.read(name) or b"{}")["time"] < EXPIRES:
                    return None
            self.put(name, [content])
        return RemoteLease(self, name)

    def local(self, name: str) -> Path:
        """A copy on this machine, of which a few are kept."""
        with self._fetching:
            if name not in self._here:
                self._fetch(name)
            self._here[name] = self._here.pop(name)  # the one that was used last goes last
            return self._here[name]

    def _fetch(self, name: str) -> None:
        """Copy a file to this machine, and forget those that were used least lately."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="hookline-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        path = self._folder / name.replace("/", "-")
        try:
            self.system.get_file(f"{self.root}/{name}", str(path))
        except FileNotFoundError:
            raise StoreError(f"{self.url}/{name} is missing, which the record of its unit names") from None
        except Exception as error:
            raise StoreError(f"cannot read {self.url}/{name}: {error}") from error
        while len(self._here) >= KEPT:
            self._here.pop(next(iter(self._here))).unlink(missing_ok=True)
        self._here[name] = path

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; one that is gone, or cannot be removed, is left."""
        for name in names:
            with suppress(Exception):
                self.system.rm_file(f"{self.root}/{name}")

    def sweep(self, named: Callable[[], set[str]]) -> None:
        """Remove data that no record names. Nothing while another process is at a unit. The order is that of a folder
        on disk."""
        own = [f"data/{name}" for name in self.names("data")]
        if not self.names("leases"):
            there = named()
            self.remove(name for name in own if name not in there)


class RemoteLease(Lease):
    """A unit of work in a store."""

    def __init__(self, folder: RemoteFolder, name: str) -> None:
        super().__init__()
        self.folder, self.name = folder, name

    def end(self) -> None:
        """Give it back."""
        self.folder.remove([self.name])

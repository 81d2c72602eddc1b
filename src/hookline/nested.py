"""Nesting: what lies around a call, or around the record of one."""

from collections.abc import Container, Iterator
from typing import Self


class Nested:
    """What runs inside another of its kind, its `parent`: a call, the record of one."""

    __slots__ = ()

    parent: "Self | None"

    def around(self) -> Iterator[Self]:
        """Those that this one runs inside, the nearest first."""
        above = self.parent
        while above is not None:
            yield above
            above = above.parent

    def nearest(self, among: Container[Self]) -> Self | None:
        """The nearest of those around that is one of `among`."""
        above = self.parent
        while above is not None and above not in among:
            above = above.parent
        return above

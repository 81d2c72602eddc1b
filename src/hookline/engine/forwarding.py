"""The metaclass of stand-in classes, and how to recognize one."""

import sys
from functools import lru_cache
from typing import Any

from torch.nn import Module

from hookline.torch_private import FINDS_SUPER


def is_stand_in(kind: type) -> bool:
    """Whether a class is a stand-in for another."""
    return isinstance(kind, Forwarding)


def original_class(module: Module) -> type[Module]:
    """The class of a module; for one with a stand-in class, the class that will be restored."""
    kind = type(module)
    return kind.__base__ if is_stand_in(kind) else kind  # type: ignore[return-value]


class Forwarding(type):
    """The metaclass of stand-ins. Attributes set on the class are set on the original, permanently and for all its
    instances. The class equals the original, also as a key of a dict, and calling it makes an instance of the original.

    Dynamo finds the next class for `super()` by `__mro__.index(class)`. There the two must differ: the stand-in comes
    first and the original after it, so a method of the original would call itself forever.
    """

    def __setattr__(cls, name: str, value: Any) -> None:
        setattr(cls.__base__, name, value)

    def __delattr__(cls, name: str) -> None:
        delattr(cls.__base__, name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """An instance of the original."""
        original: Any = cls.__base__
        return original(*args, **kwargs)

    def __eq__(cls, other: object) -> bool:
        mine, others = type.__getattribute__(cls, "__base__"), other
        if isinstance(other, Forwarding):
            others = type.__getattribute__(other, "__base__")
        if not mine == others:
            return False
        return cls is other or sys._getframe(1).f_code.co_name != FINDS_SUPER

    def __hash__(cls) -> int:
        return hash(cls.__base__)


@lru_cache(maxsize=64)
def forwarding(metaclass: Any) -> Any:
    """The metaclass of stand-ins for classes of a metaclass."""
    return Forwarding if metaclass is type else type("Forwarding", (Forwarding, metaclass), {})

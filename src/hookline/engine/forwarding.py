"""Stand-in classes as classes: what tells one, and what is done to one."""

import sys
from functools import lru_cache
from typing import Any

from torch.nn import Module

from hookline.torch_private import FINDS_SUPER


def is_stand_in(kind: type) -> bool:
    """Whether a class is one that stands for another."""
    return isinstance(kind, Forwarding)


def original_class(module: Module) -> type[Module]:
    """The class that a module has, or stands to get back."""
    kind = type(module)
    return kind.__base__ if is_stand_in(kind) else kind  # type: ignore[return-value]


class Forwarding(type):
    """The metaclass of stand-ins. What is set on the class goes to the original, for all its instances and to stay; it
    equals the original, in tables of types too; and to call it makes an instance of the original.

    Dynamo finds where `super()` goes on by `__mro__.index(class)`. There the two have to differ: the stand-in is first,
    and what is after it is the original, whose method would call itself for ever.
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

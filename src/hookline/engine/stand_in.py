"""The class that a module has while it is hooked and its slot does not serve: a subclass of its own class with our
call, which says it is the original.

That is so for a class with a `__call__` of its own, for a module that `Module.compile()` has filled the slot of, whose
methods are hooked, and where dynamo makes graphs, which looks at classes and not into slots. `type(module)` is then the
stand-in, which equals the original, and `module.__class__` the original (but for graphs of torch.compile, see
`_class_as_told`). What is set on the stand-in class goes to the original.
"""

import copy
import copyreg
import operator
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

from torch.nn import Module

from hookline.engine.call import here
from hookline.engine.forwarding import forwarding, is_stand_in, original_class
from hookline.engine.graph_calls import graph_calls
from hookline.engine.site import (
    PYTORCHS_CALL,
    SITE,
    SLOT,
    Kind,
    Site,
    close,
    hooked_call,
    hooks_lock,
    site_of,
    take_from_slot,
)
from hookline.engine.traced import graphs
from hookline.errors import AttachError

# A stand-in's own `__class__` is a property, which answers with the original class; this sets the real one past it.
set_class = object.__dict__["__class__"].__set__
stand_ins: "WeakValueDictionary[Any, Any]" = WeakValueDictionary()  # by the original class, while a module has it
in_graphs: list[type] = []  # the stand-ins that graphs may know


def swap(module: Module, site: Site) -> None:
    """Give a module with a site its stand-in class; the undo is `swap_back`."""
    set_class(module, stand_in(original_class(module)))
    module.__dict__[SITE] = site
    site.swapped = True
    if site.call is PYTORCHS_CALL and "torch._dynamo" in sys.modules:
        module.__dict__.setdefault(SLOT, site)  # the way to our hooks for those who have kept PyTorch's call


def swap_back(module: Module, site: Site) -> None:
    """Give a module its own class back, and take its site out. What has come to share that runs no hooks from here
    on."""
    if site.swapped:
        set_class(module, original_class(module))
        module.__dict__.pop(SITE, None)
        site.swapped = False
    take_from_slot(module, site)
    if graphs.made:
        graph_calls.drop_of(site, here.running)
    close(site)


def stand_in(original: Any) -> Any:
    """The stand-in of a class, the same one while an instance has it or a graph may know it. It is made on
    `torch.nn.Module` and then moved below the original, so that nothing happens which the original does when it is
    subclassed (`__init_subclass__`, a metaclass that registers)."""
    made = stand_ins.get(original)
    if made is None:
        made = stand_ins[original] = _make_stand_in(original)
    return made


def keep_for_graphs(module: Module) -> None:
    """Keep the stand-in class of a module for as long as the process: a graph may know it, and would else be made anew
    for the next one."""
    kind = type(module)
    if is_stand_in(kind) and not any(kind is kept for kept in in_graphs):
        in_graphs.append(kind)


def _make_stand_in(original: Any) -> Any:
    body = {
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "__slots__": (),
        "__call__": hooked_call,
        "__class__": property(_class_as_told, _set_class),
        "__reduce_ex__": _reduce_ex,
        "__deepcopy__": _deepcopy,
    }
    if "_wrapped_call" in vars(original):  # torch.fx's GraphModule looks for it on the class itself when it recompiles
        body["_wrapped_call"] = vars(original)["_wrapped_call"]
    metaclass = forwarding(type(original))  # type: ignore[arg-type]
    try:
        made = type.__new__(metaclass, original.__name__, (Module,), dict(body))
        type.__dict__["__bases__"].__set__(made, (original,))
    except TypeError:  # its instances have slots: such a class can only be subclassed outright
        made = type.__new__(metaclass, original.__name__, (original,), body)
    return made


def _class_as_told(self: Module) -> type[Module]:
    """The class that a hooked instance says it has: the original. Dynamo takes `type(module)` for it and checks that
    whenever it calls a graph, so that once a graph was made with our hooks in it, it is the stand-in."""
    return type(self) if graphs.made else original_class(self)


def _set_class(self: Module, wanted: type[Module]) -> None:
    """Another class for a hooked instance (parametrize, fully_shard and lazy modules give it one): it stays hooked, and
    keeps that class when the hooks are gone."""
    if is_stand_in(wanted) and "__call__" not in vars(wanted):
        raise AttachError(
            f"{wanted.__name__} was made of the class that a hooked module has meanwhile, since a compiled graph holds "
            "our hooks; take the hooks off, give the module its class, and put them on again"
        )
    kind = Kind(wanted.__base__ if is_stand_in(wanted) else wanted)  # type: ignore[arg-type]
    set_class(self, stand_in(kind.original))
    site = site_of(self)
    if site is not None:
        site.original, site.call = kind.original, kind.call


@contextmanager
def _bare(module: Module) -> Iterator[None]:
    """The module as it is without hooks of ours, for as long as it is copied."""
    with hooks_lock:
        site = module.__dict__.pop(SITE, None)
        methods = () if site is None or site.methods is None else [*site.methods.values()]
        for method in methods:
            method.take_out(module)
        hooked = type(module)
        set_class(module, original_class(module))
        entered = site is not None and module.__dict__.get(SLOT) is site
        if entered:
            del module.__dict__[SLOT]
        try:
            yield
        finally:
            set_class(module, hooked)
            if site is not None:
                module.__dict__[SITE] = site
            for method in methods:
                method.put_in(module)
            if entered:
                module.__dict__[SLOT] = site


def _reduce_ex(self: Module, protocol: Any) -> Any:
    if _is_copied_plainly(self):
        reduced = _without_site(self, object.__reduce_ex__(self, protocol))
    else:
        with _bare(self):
            reduced = self.__reduce_ex__(protocol)
    if graphs.made and reduced[0] is copyreg.__newobj__ and len(reduced[1]) == 1:  # type: ignore[attr-defined]
        # of `__newobj__` pickle compares the class with what __class__ says, which is the stand-in now
        return operator.methodcaller("__new__", *reduced[1]), reduced[1], *reduced[2:]
    return reduced


def _deepcopy(self: Module, memo: dict[int, Any]) -> Any:
    if _is_copied_plainly(self) and not hasattr(original_class(self), "__deepcopy__"):
        reduced = _without_site(self, object.__reduce_ex__(self, 4))
        return copy._reconstruct(self, memo, *reduced)  # type: ignore[attr-defined]
    with _bare(self):
        return copy.deepcopy(self, memo)


def _is_copied_plainly(module: Module) -> bool:
    """Whether a module is copied as Python copies any object: then it keeps its hooks meanwhile, which another thread
    may be calling."""
    kind: Any = original_class(module)
    site = site_of(module)
    plain = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
    return plain and kind.__getstate__ is Module.__getstate__ and (site is None or not site.methods)


def _without_site(module: Module, reduced: Any) -> Any:
    """What a module is reduced to, of its own class and without the site."""
    make, (_, *arguments), state, *rest = reduced
    kept = {name: value for name, value in state.items() if name != SITE}
    return make, (original_class(module), *arguments), kept, *rest

"""Stand-in classes, for hooked modules whose slot does not work: a subclass of the module's class with our call, which
passes for the original.

They are needed for classes with their own `__call__`, for modules with a slot filled by `Module.compile()` or with
hooked methods, and wherever dynamo makes graphs, because dynamo looks at classes and not into slots. `type(module)` is
then the stand-in, which equals the original, and `module.__class__` is the original (except once graphs exist, see
`_visible_class`). Attributes set on the stand-in class are set on the original.
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

# The `__class__` of a stand-in is a property that returns the original class; this sets the real one directly.
set_class = object.__dict__["__class__"].__set__
stand_ins: "WeakValueDictionary[Any, Any]" = WeakValueDictionary()  # by original class, while a module has it
in_graphs: list[type] = []  # the stand-ins that graphs may know


def swap(module: Module, site: Site) -> None:
    """Set the stand-in class of a module with a site; `swap_back` undoes it."""
    set_class(module, stand_in(original_class(module)))
    module.__dict__[SITE] = site
    site.swapped = True
    if site.call is PYTORCHS_CALL and "torch._dynamo" in sys.modules:
        module.__dict__.setdefault(SLOT, site)  # so that code that has stored PyTorch's call still reaches our hooks


def swap_back(module: Module, site: Site) -> None:
    """Restore the class of a module, and remove its site. Copies of the module that share the site run no hooks from
    now on."""
    if site.swapped:
        set_class(module, original_class(module))
        module.__dict__.pop(SITE, None)
        site.swapped = False
    take_from_slot(module, site)
    if graphs.made:
        graph_calls.drop_of(site, here.running)
    close(site)


def stand_in(original: Any) -> Any:
    """The stand-in of a class, the same one while an instance has it or a graph may know it. It is made as a subclass
    of `torch.nn.Module`, and its base is then set to the original, so that nothing runs that subclassing the original
    would run (`__init_subclass__`, a metaclass that registers classes)."""
    made = stand_ins.get(original)
    if made is None:
        made = stand_ins[original] = _make_stand_in(original)
    return made


def keep_for_graphs(module: Module) -> None:
    """Keep the stand-in class of a module until the process ends: a graph may know it, and would have to be made again
    for a new one."""
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
        "__class__": property(_visible_class, _set_class),
        "__reduce_ex__": _reduce_ex,
        "__deepcopy__": _deepcopy,
    }
    if "_wrapped_call" in vars(original):  # torch.fx's GraphModule reads it from the class itself when it recompiles
        body["_wrapped_call"] = vars(original)["_wrapped_call"]
    metaclass = forwarding(type(original))  # type: ignore[arg-type]
    try:
        made = type.__new__(metaclass, original.__name__, (Module,), dict(body))
        type.__dict__["__bases__"].__set__(made, (original,))
    except TypeError:  # its instances have slots: such a class can only be subclassed in the usual way
        made = type.__new__(metaclass, original.__name__, (original,), body)
    return made


def _visible_class(self: Module) -> type[Module]:
    """The `__class__` of a hooked instance: the original. Dynamo takes it for `type(module)`, and checks that before it
    calls a graph. So once a graph was made with our hooks in it, this is the stand-in."""
    return type(self) if graphs.made else original_class(self)


def _set_class(self: Module, wanted: type[Module]) -> None:
    """Set another class on a hooked instance, as parametrize, fully_shard and lazy modules do. It stays hooked, and
    keeps this class when the hooks are removed."""
    if is_stand_in(wanted) and "__call__" not in vars(wanted):
        raise AttachError(
            f"{wanted.__name__} was made from the temporary class of a hooked module, which a compiled graph knows; "
            "remove the hooks, set the class of the module, and add the hooks again"
        )
    kind = Kind(wanted.__base__ if is_stand_in(wanted) else wanted)  # type: ignore[arg-type]
    set_class(self, stand_in(kind.original))
    site = site_of(self)
    if site is not None:
        site.original, site.call = kind.original, kind.call


@contextmanager
def _bare(module: Module) -> Iterator[None]:
    """A block in which a module is without our hooks, to copy it."""
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
        # for `__newobj__`, pickle compares the class with `__class__`, which is the stand-in now
        return operator.methodcaller("__new__", *reduced[1]), reduced[1], *reduced[2:]
    return reduced


def _deepcopy(self: Module, memo: dict[int, Any]) -> Any:
    if _is_copied_plainly(self) and not hasattr(original_class(self), "__deepcopy__"):
        reduced = _without_site(self, object.__reduce_ex__(self, 4))
        return copy._reconstruct(self, memo, *reduced)  # type: ignore[attr-defined]
    with _bare(self):
        return copy.deepcopy(self, memo)


def _is_copied_plainly(module: Module) -> bool:
    """Whether a module is copied as Python copies any object. Then it keeps its hooks while it is copied, since another
    thread may be calling it."""
    kind: Any = original_class(module)
    site = site_of(module)
    plain = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
    return plain and kind.__getstate__ is Module.__getstate__ and (site is None or not site.methods)


def _without_site(module: Module, reduced: Any) -> Any:
    """The reduced form of a module, with its original class and without the site."""
    make, (_, *arguments), state, *rest = reduced
    kept = {name: value for name, value in state.items() if name != SITE}
    return make, (original_class(module), *arguments), kept, *rest

"""Find modules that draw random numbers in eval mode, which a comparison from one random state hides."""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from hookline.engine.attach import attach
from hookline.engine.call import Call
from hookline.engine.compiled import is_compiled
from hookline.engine.forwarding import original_class
from hookline.engine.hook import make_hooks
from hookline.messages import few
from hookline.model.select import Selection
from hookline.record.draws import Draws, modeless_dropout

LAST = float("inf")


@contextmanager
def drawing(selection: Selection) -> Iterator[Draws]:
    """A block that finds the calls that draw random numbers in eval mode; none in a compiled model, whose graph would
    have to read the random state."""
    found = Draws()
    if any(is_compiled(module) for module in selection.model.modules()):
        yield found
        return
    names = {id(module): (path, itertools.count()) for path, module in selection}

    def begin(call: Call) -> None:
        path, count = names[id(call.module)]
        found.begin(call, (path, next(count)))

    hooks = make_hooks(before=begin, after=found.end, always=found.leave, order=LAST, compiled="leave out")
    with attach([*selection], hooks):
        yield found


def random_notes(draws: Draws, selection: Selection, which: str) -> Iterator[str]:
    """A note on the modules that drew random numbers, with the line of their code that forgets the mode."""
    paths = [*dict.fromkeys(path for path, _ in draws.found)]
    if not paths:
        return
    lines = (modeless_dropout(original_class(selection.modules[path])) for path in paths if path in selection.modules)
    line = next((line for line in lines if line is not None), None)
    why = f": `{line}` drops values in evaluation too" if line is not None else ""
    told = f"the {which} draws random numbers in evaluation, in {few(_shown(paths))}{why}"
    yield f"{told}; both models started from one random state, two calls of one differ"


def _shown(paths: Iterable[str]) -> list[str]:
    return [path or "the model" for path in paths]

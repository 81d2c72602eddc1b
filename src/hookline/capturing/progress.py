"""A line on the terminal that says how far the work is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def line_on_terminal(doing: str, wanted: bool) -> Iterator[Callable[[str], None]]:
    """A block with a line on stderr, where that is a terminal; gives a function that changes the line's text."""
    from hookline.model.console import Console

    console = Console(stderr=True)
    if not (wanted and console.is_terminal):
        yield lambda text: None
        return
    with console.status(doing) as status:
        yield lambda text: status.update(f"{doing}: {text}")

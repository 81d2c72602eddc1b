"""Which tolerance holds for which call: the argument `tolerances` of `diff`."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from hookline.errors import ArgumentError, ArgumentTypeError, CompareError
from hookline.matching.match import Matching
from hookline.matching.tensors import Tolerance
from hookline.model.select import glob_to_regex

Allowed: TypeAlias = Callable[[str], Tolerance | None]
Tolerances: TypeAlias = Tolerance | Mapping[str, Tolerance] | None
"""One tolerance, or several by glob over paths, or None for those of `torch.testing`."""


def allowing(tolerances: Tolerances) -> Allowed:
    """A function from a path to its tolerance, by the first glob that matches; None means that of the dtypes. Raises
    ArgumentError for what is not a pair (relative, absolute).

    >>> allowing({"head.**": (1e-2, 1e-3)})("head.linear"), allowing((0.0, 0.0))("head")
    ((0.01, 0.001), (0.0, 0.0))
    """
    given = tolerances if isinstance(tolerances, Mapping) else {} if tolerances is None else {"**": tolerances}
    for pattern, pair in given.items():
        if not (
            isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(each, int | float) for each in pair)
        ):
            raise ArgumentTypeError(f"a tolerance must be a pair (relative, absolute), not {pair!r} (for {pattern!r})")
        if not all(each >= 0 for each in pair):
            raise ArgumentError(f"a tolerance must be 0 or more, not {pair!r} (for {pattern!r})")
    rules = [(glob_to_regex(pattern), (float(pair[0]), float(pair[1]))) for pattern, pair in given.items()]
    return lambda path: next((pair for expression, pair in rules if expression.fullmatch(path)), None)


def refuse_unmatched(matching: Matching, tolerances: Tolerances) -> None:
    """Raise CompareError if no call is matched, and ArgumentError for a glob of the tolerances that matches none of the
    compared paths."""
    if not matching.pairs:
        raise CompareError(
            "nothing to compare: no call of the first matches a call of the second; pass mapping= from paths of the "
            "first to paths of the second"
        )
    for pattern in tolerances if isinstance(tolerances, Mapping) else ():
        expression = glob_to_regex(pattern)
        if not any(expression.fullmatch(call.path) for call, _ in matching.pairs):
            raise ArgumentError(f"tolerances: {pattern!r} matches none of the paths that are compared")

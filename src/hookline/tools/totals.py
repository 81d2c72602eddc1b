"""totals: what the activations of a data set add up to, without storing any."""

import os
import time
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import Module

from hookline.capturing.adding import Adding, merged_over_ranks
from hookline.capturing.asked import asked
from hookline.capturing.batch import Calls, Kept
from hookline.capturing.batches import Errors
from hookline.capturing.examples import Id
from hookline.capturing.progress import line_on_terminal
from hookline.capturing.rows import Rows
from hookline.capturing.total import Measures
from hookline.capturing.totals import Totals
from hookline.errors import ArgumentError
from hookline.model.select import Where
from hookline.model.sharded import rank_and_world


def totals(
    model: Module,
    data: Any,
    where: Where,
    *,
    covariance: bool = False,
    quantiles: bool = False,
    histogram: bool = False,
    top: int | None = None,
    call: Callable[[Any], Any] | None = None,
    run: Callable[[Module, Any], Any] | None = None,
    rows: Rows | None = None,
    keep: Kept = "output",
    key: Any = None,
    calls: Calls = "one",
    loss: Callable[[Any], Tensor] | None = None,
    batch: int = 32,
    id: Id = None,
    errors: Errors = "raise",
    seed: int = 0,
    part: tuple[int, int] | None = None,
    progress: bool = True,
) -> Totals:
    """Run the model over a data set and add up the activations of the selected modules, without storing any: mean, std,
    min, max and zeros of each feature, and what else is asked for. Returns `Totals`, with a `Total` for each point.

    - `covariance`: the covariance of the features too;
    - `quantiles`, `histogram`: how the values of a point are distributed; both come from the same counts;
    - `top`: so many of the largest values of each feature, with the examples and positions that they are of.

    The other arguments are those of `hookline.capture`: `data`, `where`, `call`, `run`, `rows`, `keep`, `key`, `calls`,
    `loss`, `batch`, `id`, `errors`, `seed`, `progress`. Positions count only with `rows=`; without it an example is one
    row, whose shape is flattened into features.

    Under `torch.distributed` the ranks take the batches in turn, and all of them return the totals of all. `part=(2,
    8)` takes part 2 of 8 in a process of its own, counting from 0; `a + b` merges two parts. Sums are exact, so that
    the result has the same bits however the batches are shared out, on machines that compute a batch alike.

    Raises CaptureError where an example fails, or has NaN or an infinite value (`errors="skip"` leaves it out), and
    where a tensor does not have examples along dimension 0; ArgumentError where an argument is wrong or a module is in
    training mode.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()).eval()
    >>> found = hookline.totals(model, torch.randn(100, 4), ["0", "1"], covariance=True, top=3, progress=False)
    >>> found["1"].mean.shape, found["1"].covariance.shape, found["1"].top.examples.shape
    (torch.Size([8]), torch.Size([8, 8]), torch.Size([3, 8]))
    """
    measures = measures_of(covariance, quantiles, histogram, top, rows)
    wanted = asked(
        model,
        data,
        where,
        call=call,
        run=run,
        rows=rows,
        keep=keep,
        key=key,
        calls=calls,
        loss=loss,
        batch=batch,
        id=id,
        errors=errors,
        seed=seed,
    )
    number, of = part_of(part)
    rank, world = (0, 1) if wanted.in_step else place_among_ranks(alone=part is not None)
    adding = Adding(wanted, measures, (number + of * rank, of * world))
    count, began = 0, time.perf_counter()
    with line_on_terminal("adding up", progress) as line:

        def tell(examples: int) -> None:
            nonlocal count
            count += examples
            line(f"{count:,} examples, {count / (time.perf_counter() - began):.0f} a second here")

        found = adding.run(tell)
    return found if world == 1 else merged_over_ranks(found, rank, world)


def measures_of(covariance: Any, quantiles: Any, histogram: Any, top: Any, rows: Any) -> Measures:
    """What is to be measured; ArgumentError for a wrong value."""
    for name, value in (("covariance", covariance), ("quantiles", quantiles), ("histogram", histogram)):
        if not isinstance(value, bool):
            raise ArgumentError(f"{name} must be True or False, not {value!r}")
    if top is not None and (type(top) is not int or top < 1):
        raise ArgumentError(f"top must be a whole number from 1, not {top!r}")
    return Measures(covariance, quantiles or histogram, top or 0, rows is not None)


def part_of(part: Any) -> tuple[int, int]:
    """The number of a part and how many there are; ArgumentError for a wrong one."""
    if part is None:
        return 0, 1
    whole = isinstance(part, tuple | list) and len(part) == 2 and all(type(each) is int for each in part)
    if not whole or not 0 <= part[0] < part[1]:
        raise ArgumentError(f"part must be (number, of), with a number from 0 to of - 1, not {part!r}")
    return part[0], part[1]


def place_among_ranks(*, alone: bool) -> tuple[int, int]:
    """The rank of this process and how many there are; ArgumentError where they have no way to each other, unless each
    is to be `alone`."""
    rank, world = rank_and_world()
    if rank is not None and world is not None:
        return rank, world
    if not alone and os.environ.get("WORLD_SIZE", "1") not in ("", "1") and "RANK" in os.environ:
        raise ArgumentError(
            "this is one of several processes, which cannot merge their totals before "
            "torch.distributed.init_process_group(); call it first, or give each process its part=(number, of) and add "
            "what they return"
        )
    return 0, 1

"""One batch through the model: the rows of each captured tensor, on the host."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import Module

from hookline.capturing.block import Block
from hookline.capturing.generated import ends_of, ids_of_ends, joined_in_examples
from hookline.capturing.host import Copies, HostCopies
from hookline.capturing.misuse import MisuseError
from hookline.capturing.rows import Rows
from hookline.edits.hooks import without_fast_path
from hookline.engine.attach import attach
from hookline.engine.call import Call
from hookline.engine.hook import Handle, make_hooks, together
from hookline.engine.notes import describe
from hookline.engine.tensor_hooks import on_gradient
from hookline.errors import EditError
from hookline.model.keypath import part_at, pick
from hookline.model.select import Selection
from hookline.model.sharded import is_distributed
from hookline.model.tensors import memory_of
from hookline.record.keep import of_tensor_and_call

Kept: TypeAlias = Literal["output", "input", "gradient"] | Callable[[Tensor], Any] | Callable[[Tensor, Call], Any]
"""What is captured of a module: its output, its input, the gradient of its output, or a function of the output."""
Calls: TypeAlias = Literal["one", "first", "last", "join"]
"""Which calls of a module that is called several times in a batch: "join" takes the rows of all, one after another."""
TOKENS = ("input_ids", "decoder_input_ids")  # what models of transformers call token ids
LANES = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
HALVES = (torch.float16, torch.bfloat16)
CACHES = ("past_key_values", "cache", "cache_params")  # and what holds the positions of earlier calls


@dataclass(slots=True)
class Wish:
    """What a user asked for, of each point."""

    keep: Kept
    key: Any
    rows: Rows | None
    dtype: torch.dtype | None
    calls: Calls
    run: Callable[[Module, Any], Any]
    loss: Callable[[Any], Tensor | None]
    function: Callable[[Tensor, Call], Any] | None = field(init=False)

    def __post_init__(self) -> None:
        self.function = of_tensor_and_call(self.keep) if callable(self.keep) else None


@dataclass(slots=True)
class Graded:
    """A tensor's gradient: zeros until a backward pass has it. `edge`: where that pass comes by it; `step`: that of its
    block; `received`, `fed`: what the model received in that call."""

    gradient: Tensor
    edge: GradientEdge
    step: int
    received: dict[str | int, Any]
    fed: list[Tensor]

    def see(self, gradient: Tensor | None) -> None:
        """Keep it."""
        if gradient is not None:
            self.gradient = gradient.detach()


@dataclass(slots=True)
class Gather:
    """Takes the rows of one batch after another, by hooks on the model and on the captured modules."""

    model: Module
    wish: Wish
    selection: Selection
    examples: Sequence[int] = ()
    given: dict[str | int, Any] = field(default_factory=dict)  # the inputs of the batch
    received: dict[str | int, Any] = field(default_factory=dict)  # what the model received in its last call
    taken: dict[str, list[Block]] = field(default_factory=dict)
    graded: dict[str, list[Graded]] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    steps: list[Tensor | None] = field(
        default_factory=list
    )  # token ids [examples] of each call of the model after the first
    fed: list[Tensor] = field(default_factory=list)  # token ids that the model received in its last call
    past: int = 0  # how many tokens it received in the calls before
    picked: dict[tuple[int, int, bool], list[Tensor]] = field(
        default_factory=dict
    )  # what `_positions` gave in this call
    called: bool = False  # whether the model was called for this batch
    open: bool = False
    copies: Copies = field(default_factory=HostCopies)

    @property
    def devices(self) -> list[torch.device]:
        """The CUDA devices that the model is on."""
        return cuda_devices(self.model)

    def batch(self, given: Any, examples: Sequence[int]) -> dict[str, Block]:
        """The rows of every point for one batch."""
        self.examples, self.open = examples, True
        self.given = dict(given) if isinstance(given, Mapping) else {}
        self.taken, self.graded, self.lengths, self.steps = {}, {}, {}, []
        self.received, self.fed, self.past, self.picked, self.called = {}, [], 0, {}, False
        try:
            with torch.set_grad_enabled(self.wish.keep == "gradient"):
                output = self.wish.run(self.model, given)
                if self.wish.keep == "gradient":
                    self._take_gradients(output)
            self.copies.wait()
            return {path: self._one(path) for path in self._points()}
        finally:
            self.given, self.received, self.taken, self.graded, self.fed, self.open = {}, {}, {}, {}, [], False

    # Hooks

    def attach(self) -> Handle:
        """Add the hooks."""
        begin = make_hooks(before=self.begin, order=-math.inf, compiled="callback")
        see = make_hooks(after=self.see, order=math.inf, compiled="callback")
        see[0].sees_gradients = self.wish.keep == "gradient"
        added: list[Handle] = []
        try:
            added.append(attach([("", self.model)], begin))
            added.append(without_fast_path(self.selection))
            added.append(attach(self.selection, see))
        except BaseException:
            together(*added).remove()
            raise
        return together(*added)

    def begin(self, call: Call) -> None:
        """Keep what the model receives: the mask is there, or among the inputs of the batch, since `generate` does not
        hand on one that hides nothing."""
        if not self.open or call.module is not self.model:
            return
        again, self.called, before, self.picked = self.called, True, self.fed, {}
        self.past += before[0].shape[-1] if before else 0
        self.received = {name: value for name, value in named_arguments(call).items() if value is not None}
        self.fed = [self.received[name] for name in TOKENS if isinstance(self.received.get(name), Tensor)]
        self._expect_once(before)
        if not again:
            self.past = self._in_cache()
        else:
            fits = [ids for ids in self.fed if tuple(ids.shape) == (len(self.examples), 1)]
            is_step = len(fits) == 1 and self._left(none=-1) < 0  # not the last piece of a prompt
            self.steps.append(fits[0][:, 0].clone().cpu() if is_step else None)  # a loop may use its memory anew

    def _expect_once(self, before: Sequence[Tensor]) -> None:
        """MisuseError where the model computes a position of a text twice, or for tokens that it may not choose: the
        rows of all calls together are not those of the text then."""
        if self.wish.calls == "first":
            return
        if self.received.get("use_cache") is False and any(map(has_one_more, before, self.fed)):
            raise MisuseError(
                "generate without a cache computes all positions anew in each step, and an example would have them "
                "several times; leave out use_cache=False"
            )
        if has_cache(self.received) and self.fed and self.fed[0].shape[-1] > 1 and self._left(none=0) < 0:
            raise MisuseError(
                "the model receives several tokens in one step of generate: guesses of an assistant or of a lookup, "
                "which it may reject; generate without these"
            )

    def _left(self, *, none: int) -> int:
        """How many tokens of the batch the model has not received yet, less than 0 where it received tokens behind
        them; `none` where the batch has none."""
        ids, prompt = self.received.get("input_ids"), self.given.get("input_ids")
        if not isinstance(ids, Tensor) or not isinstance(prompt, Tensor):
            return none
        return int(prompt.shape[-1] - self.past - ids.shape[-1])

    def _in_cache(self) -> int:
        """How many tokens of the batch a cache has that the model received in its first call: it is that of a beginning
        that all examples share, where the model receives the end of the texts and not their first piece."""
        left = self._left(none=0)
        if left <= 0:
            return 0
        ids, prompt = self.received["input_ids"], self.given["input_ids"]
        return 0 if torch.equal(ids, prompt[..., : ids.shape[-1]]) else left

    def see(self, call: Call) -> None:
        """Take the rows of what a module received or returned."""
        if not self.open:
            return
        keep, path = self.wish.keep, call.path
        value: Any = call.output
        if keep == "input":
            value = call.args[0] if len(call.args) == 1 and not call.kwargs else (*call.args, *call.kwargs.values())
        try:
            tensor = part_at(value, pick(value, self.wish.key, whose=f"the {'input' if keep == 'input' else 'output'}"))
        except EditError as error:
            raise MisuseError(f"{path or 'the model'}: {error}") from None
        if keep == "gradient":
            if not tensor.requires_grad:
                raise MisuseError(f"no gradient flows to the output of {path!r}; is everything before it frozen?")
            zeros = torch.zeros_like(tensor, requires_grad=False)
            graded = Graded(zeros, get_gradient_edge(tensor), len(self.steps), self.received, self.fed)
            on_gradient(tensor, partial(Graded.see, graded))  # of its value now: later code may change it in place
            self.graded.setdefault(path, []).append(graded)
            return
        self._take(path, tensor if self.wish.function is None else self.wish.function(tensor, call), len(self.steps))

    # What becomes of it

    def _take_gradients(self, output: Any) -> None:
        loss = self.wish.loss(output)
        if loss is None:
            raise MisuseError("keep='gradient' needs an output that requires a gradient, or loss=")
        tensors: list[Any] = [*self.model.parameters(), *self.received.values()]
        inputs: list[Any] = [each for each in tensors if isinstance(each, Tensor) and each.requires_grad]
        edges = [each.edge for graded in self.graded.values() for each in graded]  # of frozen layers too
        torch.autograd.grad(loss, [*inputs, *edges], allow_unused=True)  # which changes no `.grad`
        for path, graded in self.graded.items():
            for each in graded:
                self.received, self.fed = each.received, each.fed
                self._take(path, each.gradient, each.step)

    def _take(self, path: str, made: Any, step: int) -> None:
        """The rows of one tensor, or of each in a dict."""
        named = {f"{path}/{name}": part for name, part in made.items()} if isinstance(made, Mapping) else {path: made}
        for point, tensor in named.items():
            if not isinstance(tensor, Tensor):
                raise MisuseError(f"keep gave a {type(tensor).__name__} for {point!r}, not a tensor or a dict of them")
            if tensor.is_complex() or tensor.is_quantized or tensor.is_nested or tensor.layout != torch.strided:
                raise MisuseError(
                    f"{point!r} gives {describe(tensor)}, which is complex, quantized, nested or sparse; give keep= a "
                    "function that makes a dense tensor of it, such as torch.view_as_real"
                )
            blocks = self.taken.setdefault(point, [])
            if blocks and self.wish.calls == "first":
                continue
            if blocks and self.wish.calls == "last" and not self.steps:
                blocks.clear()
            blocks.append(self._rows(point, tensor.detach().resolve_neg(), step))

    def _rows(self, point: str, tensor: Tensor, step: int) -> Block:
        """The rows that count of a tensor, which is copied."""
        if is_distributed(tensor):
            tensor = tensor.full_tensor()  # type: ignore[attr-defined]
        count, rows = len(self.examples), self.wish.rows
        if tensor.dim() == 0 or tensor.shape[0] != count:
            raise MisuseError(
                f"{point or 'the model'!r} gives {describe(tensor)} for a batch of {count}: dimension 0 must be the "
                "examples; give keep= a function that brings them there"
            )
        if rows is None:
            return Block(self._own(self._cast(point, tensor), tensor), [1] * count, step=step)
        if tensor.dim() == 1:
            raise MisuseError(f"{point!r} gives {describe(tensor)}, without positions; leave out rows=")
        length = tensor.shape[1]
        key = step, length, point in self.lengths
        if key not in self.picked:  # once for all points: it waits for the device
            self.picked[key] = self._positions(rows, *key)
        positions = self.picked[key]
        places = torch.cat([place * length + each for place, each in enumerate(positions)])
        flat = tensor.reshape(count * length, *tensor.shape[2:])
        everything = torch.equal(places, torch.arange(len(flat)))
        values = flat if everything else taken(flat, places.to(flat.device))
        fits = [ids for ids in self.fed if tuple(ids.shape) == (count, length)]
        tokens = fits[0] if len(fits) == 1 else None  # of an encoder's and a decoder's nobody can tell
        before = self.lengths.get(point, 0)
        self.lengths[point] = before + length
        return Block(
            self._own(self._cast(point, values), tensor),
            [len(each) for each in positions],
            (torch.cat(positions) + before).to(torch.int32),
            None if tokens is None else tokens.reshape(-1).cpu()[places].to(torch.int32),
            step,
        )

    def _positions(self, rows: Rows, step: int, length: int, seen: bool) -> list[Tensor]:
        """The positions of each example that count, of a tensor that a call of the model made; `seen` says whether its
        point had one before.

        The mask is one of this call. Where it goes on behind the calls before, as the steps of `generate` do, the last
        columns are those of its own positions. A call of one position without such a mask hides nothing.
        """
        count, name = len(self.examples), rows.mask
        inputs = self.given | self.received
        if name is not None and self.called:
            own = [each[name] for each in (self.received, *(() if step else (self.given,))) if name in each]
            fit = [mask for mask in own if isinstance(mask, Tensor) and tuple(mask.shape) == (count, length)]
            inputs.pop(name, None)
            if own:
                inputs[name] = (*fit, *own)[0]
        is_piece = has_cache(self.received) and self._left(none=0) > 0
        behind = is_piece or (step > 0 and (length == 1 or has_cache(self.received)))
        if not behind and not (seen and length == 1):
            return rows.of(inputs, self.examples, length)
        fed = self.fed[0].shape[-1] if self.fed else length  # a module may have fewer positions than tokens
        return rows.of_more(inputs, self.examples, length, behind=behind and fed == length)

    def _own(self, values: Tensor, tensor: Tensor) -> Tensor:
        """Values in memory that nobody else writes to: a copy, unless they are one already and stay where they are."""
        values = values.contiguous()
        memory, others = memory_of(values), memory_of(tensor)
        known = memory is not None and others is not None  # the output of a collective that still runs has none
        if known and memory != others and not self.copies.moves(values):
            return values
        return self.copies.copy(values)

    def _cast(self, point: str, values: Tensor) -> Tensor:
        """Values in the dtype that was asked for; an error where that cannot hold them."""
        dtype = self.wish.dtype
        if dtype is None or dtype == values.dtype:
            return values
        cast = values.to(dtype)
        worst = lost(values, cast)
        if worst is not None:
            raise MisuseError(
                f"{point!r} has values such as {worst:.4g}, which {dtype} cannot hold; capture torch.bfloat16, or "
                "leave out dtype="
            )
        return cast

    def _points(self) -> list[str]:
        missing = [path for path in self.selection.paths if not any(_is_of(point, path) for point in self.taken)]
        if missing:
            raise MisuseError(f"{missing[0]!r} was not called in this batch; capture modules that every batch calls")
        return [*self.taken]

    def _one(self, point: str) -> Block:
        """What the calls of one batch come to."""
        blocks = self.taken[point]
        if len(blocks) == 1:
            return blocks[0]
        if self.wish.calls == "one":
            raise MisuseError(
                f"{point!r} was called {len(blocks)} times in one batch; say which with calls='first', 'last' or 'join'"
            )
        ends = self.wish.rows.until if self.wish.rows is not None else None
        over = ends_of(self.steps, len(self.examples), *(ids_of_ends(self.model) if ends is None else (ends, ())))
        return joined_in_examples(blocks, over, last=self.wish.calls == "last")


def cuda_devices(model: Module) -> list[torch.device]:
    """The CUDA devices that a model is on."""
    tensors = (*model.parameters(), *model.buffers())
    return sorted({tensor.device for tensor in tensors if tensor.device.type == "cuda"}, key=str)


def has_cache(received: Mapping[str | int, Any]) -> bool:
    """Whether a model received what earlier calls of it computed."""
    return not received.keys().isdisjoint(CACHES)


def has_one_more(before: Tensor, ids: Tensor) -> bool:
    """Whether texts are those before with a token more."""
    count = before.shape[-1]
    return ids.shape == (*before.shape[:-1], count + 1) and torch.equal(ids[..., :count], before)


def _is_of(point: str, path: str) -> bool:
    return point == path or point.startswith(f"{path}/")


def named_arguments(call: Call) -> dict[str | int, Any]:
    """What a module received: by number, and by the names that its forward has for them."""
    found: dict[str | int, Any] = dict(enumerate(call.args))
    try:
        bound = inspect.signature(call.module.forward).bind_partial(*call.args, **call.kwargs)
        found.update(bound.arguments)
    except (TypeError, ValueError):
        pass
    found.update(call.kwargs)
    return found


def taken(rows: Tensor, places: Tensor) -> Tensor:
    """Some rows. Those of a dtype that `index_select` lacks are taken as whole numbers of the same size."""
    number = LANES.get(rows.dtype)
    if number is None:
        return rows.index_select(0, places)
    return rows.view(number).index_select(0, places).view(rows.dtype)


def lost(values: Tensor, cast: Tensor) -> float | None:
    """The largest of the values that a dtype did not hold; None where it held all of them, but for rounding."""
    if cast.dtype in HALVES and bool(cast.sum(dtype=torch.float32).isfinite()):
        return None  # what is too large would be infinite, and so would be the sum
    if values.device.type == "mps":  # which has no float64
        values, cast = values.cpu(), cast.cpu()
    wide, back = values.double(), cast.double()
    if cast.dtype.is_floating_point:
        flips = (back.sign() != wide.sign()) & (back != 0) & ~wide.isnan()
        most = torch.finfo(cast.dtype).max
        bad = flips | (back.isnan() != wide.isnan()) | ((wide.abs() > most) & ~(wide.isinf() & back.isinf()))
    elif values.is_floating_point():
        bad = torch.ones_like(values, dtype=torch.bool)
    else:
        bad = (cast.to(values.dtype) != values) | (back.sign() != wide.sign())
    found = wide[bad]
    return found[found.abs().argmax()].item() if len(found) else None

"""A program in the making: every call is run at once on example values, so that shapes are known and always fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from .choices import Choices, chance, pick
from .program import Call, Input, Program, Ref, Stored, draws, input_value, mapped, operator_of, stored_value

__all__ = ["Draft", "Rejected"]

Tensor = torch.Tensor

LARGEST_VALUE = 1e4
LARGEST_SIZE = 4096
WIDTHS = (4, 2, 3, 6, 8, 5, 1, 12)


class Rejected(Exception):
    """A step that does not fit: torch refuses it, or its values are not finite or too large."""


class Draft:
    """The program so far, with example values. Recipes read shapes here and add calls."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.inputs: list[Input] = []
        self.stored: list[Stored] = []
        self.calls: list[Call] = []
        self.pool: list[Ref] = []
        """Floating-point values that later steps may read, oldest first."""
        self._values: dict[str, Any] = {}
        self._generator = torch.Generator().manual_seed(0)
        self._count = 0

    # Decisions ----------------------------------------------------------------------------------------------------

    def pick(self, options: Sequence[Any]) -> Any:
        """One of `options`. Raises Rejected where there is none."""
        if not options:
            raise Rejected("nothing to choose from")
        return pick(self.choices, options)

    def chance(self, percent: int) -> bool:
        """True in so many of a hundred cases."""
        return chance(self.choices, percent)

    def integer(self, low: int, high: int) -> int:
        """A whole number, both ends included. Raises Rejected where there is none."""
        if high < low:
            raise Rejected(f"no number from {low} to {high}")
        return self.choices.integer(low, high)

    def width(self) -> int:
        """A number of channels."""
        return int(self.pick(WIDTHS))

    # Values -------------------------------------------------------------------------------------------------------

    def value(self, ref: Ref) -> Tensor:
        """The example value."""
        value = self._values[ref.name]
        result: Tensor = value if ref.item is None else value[ref.item]
        return result

    def shape(self, ref: Ref) -> tuple[int, ...]:
        """Sizes of a value."""
        return tuple(self.value(ref).shape)

    def rank(self, ref: Ref) -> int:
        """Number of axes of a value."""
        return self.value(ref).dim()

    def axis(self, ref: Ref, least: int = 1, suits: Callable[[int], bool] = lambda size: True) -> int:
        """An axis of at least `least` positions whose size suits; channels first, the batch last."""
        sizes = self.shape(ref)
        order = sorted(range(len(sizes)), key=lambda axis: (axis != 1, axis == 0, -axis))
        fits = [axis for axis in order if sizes[axis] >= least and suits(sizes[axis])]
        if not fits:
            raise Rejected("no axis fits")
        return int(fits[0] if self.chance(40) else self.pick(fits))

    def _name(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"

    def input(self, shape: Sequence[int], high: int | None = None, mask: bool = False) -> Ref:
        """A new input; see `Input`."""
        given = Input(self._name("x"), tuple(shape), high, mask)
        self.inputs.append(given)
        self._values[given.name] = input_value(given, 0, self._generator)
        ref = Ref(given.name)
        if high is None and not mask:
            self.pool.append(ref)
        return ref

    def mask(self, *shape: int) -> Ref:
        """A mask, as an input; now and then one that is there already."""
        alike = [given for given in self.inputs if given.mask and given.shape == shape]
        return Ref(self.pick(alike).name) if alike and self.chance(60) else self.input(shape, mask=True)

    def store(self, *shape: int, kind: str = "normal", scale: float = 1.0, high: int = 0) -> Ref:
        """A stored tensor; now and then one that is there already, which then has two readers."""
        alike = [s for s in self.stored if (s.shape, s.kind, s.high) == (shape, kind, high)]
        if alike and self.chance(15):
            return Ref(self.pick(alike).name)
        letter = {"normal": "w", "index": "i", "truth": "t"}.get(kind, "b")
        made = Stored(self._name(letter), shape, self._count, kind, round(scale, 3), high)
        if made_size(made.shape) > LARGEST_SIZE:
            raise Rejected("too large")
        self.stored.append(made)
        self._values[made.name] = stored_value(made)
        return Ref(made.name)

    def weight(self, *shape: int, fan_in: int) -> Ref:
        """A matrix or kernel that keeps the size of its operand's values."""
        return self.store(*shape, scale=(1.0 / max(1, fan_in)) ** 0.5)

    def optional(self, *shape: int, scale: float = 0.5) -> Ref | None:
        """A stored tensor such as a bias, or None."""
        return None if self.chance(25) else self.store(*shape, scale=scale)

    def call(self, operator: str, *args: Any, **keywords: Any) -> Ref:
        """Adds a call of ``namespace.name.overload`` (``aten.`` may be left out).

        Raises:
            Rejected: torch refuses the operands, or the result is empty, not finite or too large.
        """
        full = operator if operator.count(".") == 2 else f"aten.{operator}"
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[], enabled=draws(full)):
                if draws(full):
                    torch.manual_seed(0)
                given = {key: mapped(value, self.value) for key, value in keywords.items()}
                result = operator_of(full)(*mapped(args, self.value), **given)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise Rejected(str(error)) from None
        for tensor in result if isinstance(result, tuple | list) else [result]:
            _check_value(tensor)
        name = self._name("v")
        self.calls.append(Call(name, full, _frozen(args), tuple((k, _frozen(v)) for k, v in keywords.items())))
        self._values[name] = result
        return Ref(name)

    def items(self, ref: Ref) -> list[Ref]:
        """The results of a call that gives several."""
        return [Ref(ref.name, place) for place in range(len(self._values[ref.name]))]

    def is_plain(self, ref: Ref) -> bool:
        """Returns if the value's memory is neither an input's nor a stored tensor's."""
        own = self.value(ref).untyped_storage().data_ptr()
        outside = [*self.inputs, *self.stored]
        return all(self._values[kept.name].untyped_storage().data_ptr() != own for kept in outside)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """What is added inside is taken back if it ends in `Rejected`, which is swallowed."""
        lists: list[list[Any]] = [self.inputs, self.stored, self.calls, self.pool]
        lengths = [len(kept) for kept in lists]
        try:
            yield
        except Rejected:
            for kept, length in zip(lists, lengths, strict=True):
                del kept[length:]

    # Operands -----------------------------------------------------------------------------------------------------

    def operand(self, suits: Callable[[Tensor], bool] = lambda value: True) -> Ref:
        """A value that suits, rather a late one. Raises Rejected where there is none."""
        fits = [ref for ref in self.pool if suits(self.value(ref))]
        if not fits:
            raise Rejected("no value fits")
        recent = fits[-3:]
        ref: Ref = self.pick(recent[::-1]) if self.chance(70) else self.pick(fits)
        return ref

    def of_rank(self, *ranks: int) -> Ref:
        """A value of one of these ranks; another one is reshaped if there is none, or just so."""
        fits = any(self.rank(ref) in ranks for ref in self.pool)
        if fits and not self.chance(5):
            return self.operand(lambda value: value.dim() in ranks)
        return self.with_rank(self.operand(), self.pick(ranks))

    def with_rank(self, ref: Ref, rank: int) -> Ref:
        """`ref` with axes split, added, or joined until there are `rank` of them."""
        while self.rank(ref) < rank:
            sizes = self.shape(ref)
            if sizes and sizes[-1] % 2 == 0 and sizes[-1] > 2 and self.chance(60):
                ref = self.call("unflatten.int", ref, -1, (sizes[-1] // 2, 2))
            else:
                ref = self.call("unsqueeze.default", ref, self.pick((-1, 0)) if sizes else 0)
        while self.rank(ref) > rank:
            start = self.integer(0, self.rank(ref) - 2) if self.rank(ref) > 1 else 0
            if self.rank(ref) == 1:
                ref = self.call("sum.default", ref)
            elif self.chance(40):
                ref = self.call("mean.dim", ref, (start,))
            else:
                ref = self.call("flatten.using_ints", ref, start, start + 1)
        return ref

    def like(self, ref: Ref, *, broadcast: bool = True) -> Ref:
        """Another operand for an entry-by-entry operator: of the same shape, or one that spreads."""
        shape = self.shape(ref)
        same = [other for other in self.pool if self.shape(other) == shape and other != ref]
        if same and self.chance(60):
            chosen: Ref = self.pick(same[::-1])
            return chosen
        spread = [other for other in self.pool if self.shape(other) != shape and _spreads(self.shape(other), shape)]
        if broadcast and spread and self.chance(50):
            chosen = self.pick(spread[::-1])
            return chosen
        kind = self.integer(0, 4 if broadcast else 1)
        if kind == 0:
            return self.call("cos.default", ref)
        if kind == 1:
            return self.store(*shape) if len(shape) else ref
        if kind == 2 and shape:
            return self.call("mean.dim", ref, (self.axis(ref),), True)
        if kind == 3 and shape:
            axis = self.axis(ref)
            return self.store(*(shape[axis], *(1 for _ in shape[axis + 1 :])))
        return ref

    def fed(self, ref: Ref, axis: int, percent: int = 50) -> Ref:
        """Often `ref` after a layer that mixes `axis`, so that channels can go before what comes next."""
        if not self.chance(percent):
            return ref
        size, rank = self.shape(ref)[axis], self.rank(ref)
        width = size if self.chance(60) else self.width()
        if axis == rank - 1:
            return self.call("linear.default", ref, self.weight(width, size, fan_in=size), self.optional(width))
        if axis == 1 and rank in (3, 4, 5):
            kernel = self.weight(width, size, *(1,) * (rank - 2), fan_in=size)
            return self.call(f"conv{rank - 2}d.default", ref, kernel, self.optional(width))
        return ref

    def finished(self, outputs: Iterable[Ref]) -> Program:
        """The program as data."""
        extra = self.pick(((None,), (None, 3), (2.5, True))) if self.chance(5) else ()
        return Program(tuple(self.inputs), tuple(self.stored), tuple(self.calls), tuple(outputs), extra=extra)


def made_size(shape: Sequence[int]) -> int:
    """Entries of a tensor of this shape."""
    return int(torch.Size(shape).numel())


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, tuple | list) else value


def _check_value(tensor: Any) -> None:
    if not isinstance(tensor, torch.Tensor) or tensor.numel() == 0:
        if isinstance(tensor, torch.Tensor) and tensor.dim() < 2:
            return  # An operator's unused result, such as the statistics of a norm in inference.
        raise Rejected("empty")
    if tensor.numel() > LARGEST_SIZE or tensor.dim() > 6:
        raise Rejected("too large")
    if tensor.is_floating_point() and not float(tensor.abs().max()) < LARGEST_VALUE:
        raise Rejected("not finite or too large")


def _spreads(shape: Sequence[int], onto: Sequence[int]) -> bool:
    """Returns if `shape` can be broadcast to `onto`."""
    if len(shape) > len(onto):
        return False
    return all(a in (1, b) for a, b in zip(reversed(shape), reversed(onto), strict=False))

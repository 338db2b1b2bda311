"""Kernel patterns with connectivity (PatDNN: Niu et al., 2020, arXiv 2001.00138).

A 3x3 kernel keeps its centre and three of the eight weights around it: 56 patterns, of which a network uses a few. They are
found from the network's own weights: the natural pattern of a kernel is its centre and the three largest around it, and the set
is that of the most frequent ones. More zeros than 5 of 9 are whole kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor

from ...frontend.base.errors import InputError
from .base import LayerShape, Structure, check_share, first_index, multiple_of, named_unit, widest
from .connectivity import Connectivity
from .fkw import KernelWeights
from .ranking import highest, highest_of_each

__all__ = ["ALL_PATTERNS", "CENTRE", "ENTRIES", "Pattern"]

ENTRIES, CENTRE = 4, 4
"""Weights of a pattern, and the position in a kernel that all patterns have."""
ALL_PATTERNS = tuple(
    sum(1 << position for position in (CENTRE, *around))
    for around in combinations([position for position in range(9) if position != CENTRE], ENTRIES - 1)
)
"""The 56, as numbers whose bits are kernel positions, row by row."""


@dataclass(frozen=True)
class Pattern(Structure):
    """A unit is the kernel (or those of R consecutive filters, which is ours) with one of the patterns of the set.

    The projection takes, of every kernel, the pattern with which the norm is largest, and then the kernels of which that is
    largest in the layer. Patterns alone are 5/9 zeros; kernels go only for a larger share.

    Attributes:
        size: patterns of the set; 6, 8 and 12 are evaluated in the paper, which recommends 8.
        filters: R.
        patterns: the set, of `ALL_PATTERNS`; empty before it is found (`fitted`), and then found for each weight by itself.
    """

    form: ClassVar[str] = "pattern:K:R"

    size: int = 8
    filters: int = 1
    patterns: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size > len(ALL_PATTERNS):
            raise InputError(f"there are {len(ALL_PATTERNS)} patterns of 4 of 9 with the centre, not {self.size}")
        if unknown := set(self.patterns) - set(ALL_PATTERNS):
            raise InputError(f"{min(unknown)} is no pattern; take some of ALL_PATTERNS")

    def __str__(self) -> str:
        shared = f":{self.filters}" if self.filters > 1 else ""
        return f"pattern:{self.size}{shared}"

    def unit_weights(self, shape: LayerShape) -> int:
        return ENTRIES * self.filters

    def fits(self, shape: LayerShape) -> str:
        if shape.taps != (3, 3):
            kernel = "x".join(map(str, shape.taps)) or "none"
            return f"patterns are of 3x3 kernels, its are {kernel}"
        return multiple_of(shape, self.filters)

    def fitted(self, scores: Sequence[Tensor]) -> Pattern:
        """With the set that is most frequent among the natural patterns of all kernels that are not zero."""
        counts = torch.zeros(1 << 9, dtype=torch.int64)
        for layer in scores:
            kernels = self._kernels(layer).reshape(-1, 9)
            natural = kernels[(kernels != 0).any(-1)]
            natural[:, CENTRE] = torch.inf
            counts += _numbers(highest_of_each(natural, ENTRIES)).bincount(minlength=1 << 9).cpu()
        ranked = sorted(ALL_PATTERNS, key=lambda pattern: (-int(counts[pattern]), pattern))
        return replace(self, patterns=tuple(sorted(ranked[: self.size])))

    def unit_scores(self, scores: Tensor) -> Tensor:
        """What the best pattern of each kernel retains: filters/R x channels."""
        return self._retained(scores).amax(-1)

    def mask(self, scores: Tensor, sparsity: float) -> Tensor:
        check_share(sparsity)
        structure = self if self.patterns else self.fitted([scores])
        best, chosen = structure._retained(scores).max(-1)
        kept = highest(best, max(1, round((1 - sparsity) * scores.numel() / (ENTRIES * self.filters))))
        entries = _table(structure.patterns).to(scores.device)[chosen] & kept[..., None]
        return entries.repeat_interleave(self.filters, 0).reshape(scores.shape)

    def factors(self, sparsity: float) -> tuple[tuple[Structure, float], ...]:
        """A pattern in every kernel, and so few kernels (PatDNN's two splits)."""
        left = (1 - sparsity) * 9 / ENTRIES
        return (self, 1 - ENTRIES / 9), (Connectivity(self.filters), max(0.0, 1 - left))

    def lasso_groups(self, scores: Tensor) -> tuple[Tensor, ...]:
        """Kernels, and the single weights around their centres; where filters share patterns, those of R filters."""
        kernels = self._kernels(scores)
        around = [position for position in range(9) if position != CENTRE]
        return kernels.sum(-1), kernels[..., around]

    def broken(self, weight: Tensor) -> str:
        counts = self._kernels((weight != 0).to(torch.int32))
        there, full = counts > 0, counts == self.filters
        entries = there.sum(-1)
        right = (entries == 0) | ((entries == ENTRIES) & there[..., CENTRE] & (there == full).all(-1))
        if not bool(right.all()):
            row, channel = index = first_index(~right)
            where = named_unit(filter=(row * self.filters, self.filters), input_channel=(channel, 1))
            return (
                f"{where}: {int(entries[tuple(index)])} of 9 kernel positions are there, not none, or 4 with the centre"
            )
        found = _found(weight)
        if self.patterns and set(found) - set(self.patterns):
            return "some of its patterns are not of the set"
        return f"it has {len(found)} patterns, not at most {self.size}" if len(found) > self.size else ""

    @classmethod
    def recognise(cls, weight: Tensor) -> Pattern | None:
        """With the patterns that there are."""
        widest_set = cls(len(ALL_PATTERNS))
        if widest_set.fits(LayerShape.of(weight)) or widest_set.broken(weight[:1]) or widest_set.broken(weight):
            return None
        found = _found(weight)
        return widest(lambda filters: cls(len(found), filters, found), weight, least=1) if found else None

    def pack(self, weight: Tensor) -> KernelWeights:
        return KernelWeights.pack(weight, _found(weight))

    def _kernels(self, scores: Tensor) -> Tensor:
        """Sums over the filters that share a pattern: filters/R x channels x 9."""
        return scores.reshape(scores.shape[0] // self.filters, self.filters, scores.shape[1], 9).sum(1)

    def _retained(self, scores: Tensor) -> Tensor:
        """What every pattern of the set retains of every kernel."""
        structure = self if self.patterns else self.fitted([scores])
        table = _table(structure.patterns).to(scores)
        return self._kernels(scores) @ table.T


@cache
def _table(patterns: tuple[int, ...]) -> Tensor:
    """Which positions each pattern has: patterns x 9, boolean."""
    return torch.tensor([[bool(pattern >> position & 1) for position in range(9)] for pattern in patterns])


def _numbers(kernels: Tensor) -> Tensor:
    """Boolean kernels as numbers whose bits are positions."""
    return (kernels * (1 << torch.arange(9, device=kernels.device))).sum(-1)


def _found(weight: Tensor) -> tuple[int, ...]:
    """The supports of all kernels that are not zero, as numbers."""
    numbers = _numbers((weight != 0).reshape(-1, 9)).unique()
    return tuple(int(number) for number in numbers if number)

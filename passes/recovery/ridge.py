"""Ridge regression towards the old weights, from moments: which weights give outputs nearest to the wanted ones.

With x a row of what a layer reads (n numbers), y its wanted outputs, W0 the weights it has and means over the rows taken out,

    minimise over W, b:  mean |y - W x - b|^2  +  r * (trace(S) / n) * |W - W0|^2,    S = mean (x - mx)(x - mx)^T

so that W = W0 + (C - W0 S) (S + r trace(S)/n I)^-1 with C = mean (y - my)(x - mx)^T, and b = my - W mx. At r = 0 it is the
least squares of He, Zhang and Sun, 2017 ("Channel pruning for accelerating very deep neural networks", arXiv 1707.06168,
equation 1, second step) and of ThiNet (Luo et al., 2017, arXiv 1707.06342, equation 7); as r grows, W stays what it was and
only the mean is kept. A layer without a bias keeps no mean: mx, my and b are zero for it. Everything is float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .patches import Rows

__all__ = ["RIDGES", "Moments", "Solved", "best_ridge", "solve"]

RIDGES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
"""Those that are compared where none is given."""


@dataclass(eq=False)
class Moments:
    """Sums over rows, piece by piece; each group of a layer by itself.

    Attributes:
        groups: of the layer.
        centred: means are taken out; else they count as zero, for a layer that has no bias.
        rows: that were added.
    """

    groups: int
    centred: bool = True
    rows: int = 0
    _sums: list[Tensor] = field(default_factory=list, repr=False)

    def add(self, piece: Rows) -> None:
        """Counts more rows."""
        x = piece.inputs
        y = piece.outputs.reshape(len(piece.outputs), self.groups, -1).transpose(0, 1)
        new = [x.sum(1), y.sum(1), x.transpose(1, 2) @ x, y.transpose(1, 2) @ x, y.square().sum(1)]
        self._sums = [a + b for a, b in zip(self._sums, new, strict=True)] if self._sums else new
        self.rows += x.shape[1]

    def __add__(self, other: Moments) -> Moments:
        """Of the rows of both."""
        if not (self.rows and other.rows):
            return self if self.rows else other
        sums = [a + b for a, b in zip(self._sums, other._sums, strict=True)]
        return Moments(self.groups, self.centred, self.rows + other.rows, sums)

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """Of what is read, groups x columns, and of the outputs, groups x outputs."""
        share = 1 / self.rows if self.centred else 0.0
        return self._sums[0] * share, self._sums[1] * share

    @property
    def covariances(self) -> tuple[Tensor, Tensor, Tensor]:
        """S: groups x columns x columns, C: groups x outputs x columns, and the variances of the outputs."""
        mx, my = self.means
        _, _, xx, yx, yy = (total / self.rows for total in self._sums)
        return (
            xx - mx[:, :, None] * mx[:, None],
            yx - my[:, :, None] * mx[:, None],
            (yy - my.square()).clamp_min(0),
        )

    @property
    def finite(self) -> bool:
        """Whether no row held NaN or infinity."""
        return all(bool(total.isfinite().all()) for total in self._sums)

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """Root of the mean square of what outputs lack, over that of how far the wanted ones are from their mean.

        0 is exact, and 1 what giving the mean would do.

        Args:
            weight: groups x outputs x columns.
            bias: groups x outputs.
        """
        (mx, my), (s, c, variance) = self.means, self.covariances
        lack = variance - 2 * (weight * c).sum(2) + ((weight @ s) * weight).sum(2)
        off = my - bias - (weight @ mx[:, :, None])[..., 0]
        missing, there = float((lack.clamp_min(0) + off.square()).sum()), float(variance.sum())
        return (missing / there) ** 0.5 if there > 0 else (0.0 if missing == 0 else float("inf"))


@dataclass(frozen=True, eq=False)
class Solved:
    """New weights, groups x outputs x columns, and bias, groups x outputs; zeros where means count as zero."""

    weight: Tensor
    bias: Tensor


def solve(moments: Moments, old: Tensor, ridge: float) -> Solved:
    """The weights nearest to the wanted outputs, see above.

    Args:
        moments: of the rows.
        old: W0, groups x outputs x columns, float64.
        ridge: r, at least 0. With 0, directions that no row has are left at the old weights.
    """
    (mx, my), (s, c, _) = moments.means, moments.covariances
    columns = s.shape[1]
    strength = ridge * s.diagonal(dim1=1, dim2=2).sum(1) / columns
    lack = c - old @ s
    damped = s + strength[:, None, None] * torch.eye(columns, dtype=s.dtype, device=s.device)
    factor, failed = torch.linalg.cholesky_ex(damped)
    step = torch.cholesky_solve(lack.transpose(1, 2), factor).transpose(1, 2)
    singular = failed.ne(0) | ~step.isfinite().flatten(1).all(1) if ridge else torch.ones_like(failed, dtype=torch.bool)
    if bool(singular.any()):
        step[singular] = lack[singular] @ torch.linalg.pinv(damped[singular], rtol=1e-12, hermitian=True)
    weight = old + step
    return Solved(weight, my - (weight @ mx[:, :, None])[..., 0])


def best_ridge(halves: tuple[Moments, Moments], old: Tensor) -> float:
    """The ridge of `RIDGES` with which weights solved on one half err least on the other, both ways together."""

    def error(ridge: float) -> float:
        first, second = halves
        return sum(
            there.error(found.weight, found.bias) ** 2
            for here, there in ((first, second), (second, first))
            for found in [solve(here, old, ridge)]
        )

    return min(reversed(RIDGES), key=error)

"""The weights of a structure with which a layer's outputs are nearest to wanted ones, by ADMM on moments.

With S and C the covariances of `ridge`, W0 the old weights and D = diag(S)^(1/2), which makes every column of what is read
weigh as much as it varies, in V = W D the problem is

    minimise over V in the structure:  trace(V S' V^T) - 2 trace(C' V^T) + r |V - V0|^2,    S' = D^-1 S D^-1,  C' = C D^-1.

ADMM's step of the weights has a closed form, V = (C' + r V0 + p (Z - U)) (S' + (r + p) I)^-1, Z = nearest(V + U) in the
structure, U = U + V - Z (PatDNN's authors, "privacy-preserving", arXiv 2003.06513, take gradient steps on layers' features; the
closed form and D are those of Boza, 2024, "Fast and effective weight update for pruned large language models", arXiv
2401.02938). p grows. The weights that stay at the end are solved; the same is done for the nearest of V0, and the better of the
two is taken, so that nothing is lost by ADMM where it finds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..structures import LayerShape, Structure
from .ridge import Moments

__all__ = ["LayerAdmm", "Nearest", "nearest_of_structure"]

_DESCENTS, _MOST_STEPS, _TOLERANCE = 100, 300, 1e-7
_FLAT = 1e-4
"""Columns that vary less than this share of the most varying one count as if they varied so much."""


@dataclass(frozen=True)
class LayerAdmm:
    """How it is done.

    Attributes:
        rho: p, one after another, in units of the variance of a column of V.
        iterations: with each p.
        ridge: r, in the same units; above 0. Synthetic inputs, which are not what the network is for, want a larger one than
            inputs of its kind.
    """

    rho: tuple[float, ...] = (0.01, 0.1, 1.0)
    iterations: int = 10
    ridge: float = 0.3


@dataclass(frozen=True, eq=False)
class Nearest:
    """New weights, groups x outputs x columns, and bias, groups x outputs; and where the weights stay."""

    weight: Tensor
    bias: Tensor
    mask: Tensor
    """Of filters x channels x kernel, boolean."""


def nearest_of_structure(
    moments: Moments, old: Tensor, structure: Structure, share: float, shape: LayerShape, how: LayerAdmm
) -> Nearest:
    """The weights of a structure that give outputs nearest to the wanted ones, see above.

    Args:
        moments: of the rows.
        old: W0, groups x outputs x columns, float64.
        structure: fitted.
        share: of zeros.
        shape: of the layer's weight.
        how: options.
    """
    problem = _Problem.of(moments, old, structure, share, shape, how)
    first = problem.mask(problem.start)
    candidates = [problem.solved(mask) for mask in (first, problem.drawn(how))]
    weight, mask = min(candidates, key=lambda found: problem.loss(found[0]))
    unscaled = weight / problem.scale
    mx, my = moments.means
    return Nearest(unscaled, my - (unscaled @ mx[:, :, None])[..., 0], mask)


@dataclass(frozen=True, eq=False)
class _Problem:
    """In V; tensors are float64, of groups first."""

    quadratic: Tensor
    """S' + r I."""
    linear: Tensor
    """C' + r V0."""
    start: Tensor
    scale: Tensor
    """The diagonal of D, groups x 1 x columns."""
    structure: Structure
    share: float
    shape: LayerShape

    @classmethod
    def of(
        cls, moments: Moments, old: Tensor, structure: Structure, share: float, shape: LayerShape, how: LayerAdmm
    ) -> _Problem:
        covariance, wanted, _ = moments.covariances
        variances = covariance.diagonal(dim1=1, dim2=2)
        most = variances.amax(1, keepdim=True).clamp_min(torch.finfo(variances.dtype).tiny)
        if structure.changes_values:  # Values of a block are to be one in W, so all its columns weigh the same.
            variances = variances.mean(1, keepdim=True).expand_as(variances)
        scale = variances.maximum(_FLAT * most).sqrt()
        start = old * scale[:, None]
        identity = torch.eye(scale.shape[1], dtype=scale.dtype, device=scale.device)
        quadratic = covariance / (scale[:, :, None] * scale[:, None]) + how.ridge * identity
        linear = wanted / scale[:, None] + how.ridge * start
        return cls(quadratic, linear, start, scale[:, None], structure, share, shape)

    def loss(self, value: Tensor) -> float:
        return float(((value @ self.quadratic - 2 * self.linear) * value).sum())

    def seen(self, value: Tensor) -> Tensor:
        """As filters x channels x kernel."""
        return value.reshape(self.shape.filters, self.shape.channels, *self.shape.taps)

    def mask(self, value: Tensor) -> Tensor:
        return self.structure.mask(self.structure.energy(self.seen(value)), self.share)

    def held(self, value: Tensor, mask: Tensor) -> Tensor:
        return self.structure.applied(self.seen(value), mask).reshape(value.shape)

    def drawn(self, how: LayerAdmm) -> Tensor:
        """The mask of the weights that ADMM ends with."""
        z, dual, before = self.held(self.start, self.mask(self.start)), torch.zeros_like(self.start), how.rho[0]
        for rho in how.rho:
            dual, before = dual * (before / rho), rho
            factor = self._factor(rho)
            for _ in range(how.iterations):
                value = _solved(factor, self.linear + rho * (z - dual))
                z = self.held(value + dual, self.mask(value + dual))
                dual = dual + value - z
        return self.mask(z)

    def solved(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The best weights with these zeros, and the mask."""
        if self.structure.changes_values:
            return self._projected(mask), mask
        return self._within(mask.reshape(self.start.shape).to(self.start)), mask

    def _within(self, mask: Tensor) -> Tensor:
        """The best weights on a mask, by conjugate gradients, every filter by itself (Hestenes and Stiefel, 1952)."""
        value = self.start * mask
        lack = (self.linear - value @ self.quadratic) * mask
        wanted = _TOLERANCE**2 * (self.linear * mask).square().sum(2, keepdim=True)
        direction, length = lack, lack.square().sum(2, keepdim=True)
        for _ in range(_MOST_STEPS):
            open_ = length > wanted
            if not bool(open_.any()):
                break
            turned = (direction @ self.quadratic) * mask
            step = torch.where(open_, length / (direction * turned).sum(2, keepdim=True), 0.0)
            value, lack = value + step * direction, lack - step * turned
            before, length = length, lack.square().sum(2, keepdim=True)
            direction = lack + torch.where(open_, length / before, 0.0) * direction
        return value

    def _projected(self, mask: Tensor) -> Tensor:
        """The same where values are tied, by projected descent with a step of one over the largest curvature."""
        curvature = torch.linalg.eigvalsh(self.quadratic)[:, -1].reshape(-1, 1, 1)
        value = self.held(self.start, mask)
        for _ in range(_DESCENTS):
            value = self.held(value - (value @ self.quadratic - self.linear) / curvature, mask)
        return value

    def _factor(self, rho: float) -> Tensor:
        identity = torch.eye(self.quadratic.shape[1], dtype=self.quadratic.dtype, device=self.quadratic.device)
        return torch.linalg.cholesky(self.quadratic + rho * identity)


def _solved(factor: Tensor, wanted: Tensor) -> Tensor:
    return torch.cholesky_solve(wanted.transpose(1, 2), factor).transpose(1, 2)

"""Which positions of all axes can only go together: connected components of the index maps between axis classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ..frontend.base.limits import check_limit
from .axes import Axes

__all__ = ["Components", "resolved_components"]

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Components:
    """Connected components of positions. Position p of class c is atom ``start[c] + p``."""

    start: Index
    label: Index
    owner: Index
    frozen: NDArray[np.bool_]
    """By component."""

    def labels(self, number: int) -> Index:
        """The component of every position of a class."""
        labels: Index = self.label[self.start[number] : self.start[number + 1]]
        return labels


def _connected(axes: Axes, units: dict[int, int]) -> Components:
    """`units` says for every flat class of a reshape which factor its channels follow (place in the product)."""
    sizes = np.asarray(axes.sizes, np.int64)
    start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    total = int(start[-1])
    check_limit("positions", total, "the model's axes together")
    rows, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for gather in axes.gathers:
        rows.append(start[gather.source] + gather.source_index)
        columns.append(start[gather.target] + gather.target_index)
    for number, labels in axes.bundles:
        _, first, which = np.unique(labels, return_index=True, return_inverse=True)
        rows.append(start[number] + np.arange(labels.size))
        columns.append(start[number] + first[which])
    for place, product in enumerate(axes.products):
        if place in units:
            position = np.indices(product.sizes).reshape(len(product.sizes), -1)[units[place]]
            rows.append(start[product.flat] + np.arange(position.size))
            columns.append(start[product.factors[units[place]]] + position)
    row, column = np.concatenate(rows), np.concatenate(columns)
    matrix = coo_matrix((np.ones(row.size, np.int8), (row, column)), shape=(total, total))
    count, label = connected_components(matrix, directed=False)
    label = label.astype(np.int64)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    frozen_class = np.array([axes.frozen(number) for number in range(len(sizes))], bool)
    frozen = np.zeros(count, bool)
    frozen[label[frozen_class[owner]]] = True
    return Components(start, label, owner, frozen)


def resolved_components(axes: Axes) -> Components:
    """Decides which factor of every product its channels follow: the outermost that is not held in place."""
    loose = _connected(axes, {})
    _spread_frozen(axes, loose)
    units: dict[int, int] = {}
    for place, product in enumerate(axes.products):
        free = [
            i for i, size in enumerate(product.sizes) if size > 1 and not _all_frozen(axes, loose, product.factors[i])
        ]
        if free and not _all_frozen(axes, loose, product.flat):
            units[place] = free[0]
    components = _connected(axes, units)
    _spread_frozen(axes, components)
    return components


def _spread_frozen(axes: Axes, components: Components) -> None:
    """A product whose factors are all held is held, and the factors of a held product are: to a fixpoint."""
    changed = True
    while changed:
        changed = False
        for product in axes.products:
            real = [factor for factor, size in zip(product.factors, product.sizes, strict=True) if size > 1]
            held = _all_frozen(axes, components, product.flat)
            factors_held = all(_all_frozen(axes, components, factor) for factor in real)
            if held == factors_held:
                continue
            changed = True
            for number in [product.flat, *real]:
                components.frozen[components.labels(number)] = True


def _all_frozen(axes: Axes, components: Components, number: int) -> bool:
    return axes.frozen(number) or bool(components.frozen[components.labels(number)].all())

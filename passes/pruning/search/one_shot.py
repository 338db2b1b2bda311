"""What networks with zeros are worth before anybody trains them: zeros by magnitude, and outputs near the dense network's.

What else a network is worth, such as its accuracy on images, whoever has the images says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from ....frontend.graph_module import CapturedModule
from ...masks import check_finite
from ...recovery.layerwise import felt_by_outputs
from ...recovery.untrained import Untrained
from ...structures import Structure
from ...values import attribute
from ...weight_views import WeightView

__all__ = ["OneShot", "Taken", "Worth"]

Taken = tuple[Structure, float]
"""A structure with a share of zeros."""


class Worth(Protocol):
    """What networks with zeros are worth. The dense one makes no error."""

    def in_layer(self, name: str, structure: Structure, share: float) -> float:
        """An error of the layer's own outputs, which is quickly found; comparable within the layer."""
        ...

    def in_network(self, name: str, structure: Structure, share: float) -> float:
        """An error of the network's outputs if no other layer has zeros; comparable between layers."""
        ...

    def quality(self, chosen: Mapping[str, Taken]) -> float:
        """Of the network with zeros in all of these layers, the more the better."""
        ...


class OneShot:
    """Zeros are those of the smallest magnitude, as `prune` and the first masks of methods that train have them.

    Quality is 1 less the error of the network's outputs, see `Untrained`, unless another judge tells it from masks and from
    statistics of batch normalisation that were estimated anew.
    """

    def __init__(
        self,
        module: CapturedModule,
        offered: Mapping[WeightView, Sequence[Structure]],
        calls: Sequence[tuple[Any, ...]],
        judge: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], float] | None = None,
        seed: int = 0,
    ) -> None:
        """Args:
        module: canonical.
        offered: the structures that a weight may take. What structures choose once for all layers they choose for all of
            those that may take them.
        calls: calibration inputs.
        judge: of masks and statistics, each by the names of stored tensors.
        seed: of the output positions that errors within layers are told from.

        Raises:
            InputError: weights are not finite, or networks cannot be tried, see `Untrained`.
        """
        check_finite(module)
        self._untrained = Untrained(module, calls)
        self._views = {view.name: view for view in offered}
        weights = {view.name: view.seen(attribute(module, view.name).detach()) for view in offered}
        self._weights = weights
        self._structures = {
            one: one.fitted([one.energy(weights[view.name]) for view, some in offered.items() if one in some])
            for one in dict.fromkeys(structure for some in offered.values() for structure in some)
        }
        felt = felt_by_outputs(module, tuple(self._views), calls, seed)
        self._felt = {name: view.seen(felt[name]).double().square() for name, view in self._views.items()}
        self._judge = judge

    def in_layer(self, name: str, structure: Structure, share: float) -> float:
        return float(self._felt[name][~self._seen(name, structure, share)].sum())

    def in_network(self, name: str, structure: Structure, share: float) -> float:
        return self._untrained.error(self.masks({name: (structure, share)}))

    def quality(self, chosen: Mapping[str, Taken]) -> float:
        masks = self.masks(chosen)
        if self._judge is None:
            return 1 - self._untrained.error(masks)
        return self._judge(masks, self._untrained.statistics(masks))

    def masks(self, chosen: Mapping[str, Taken]) -> dict[str, Tensor]:
        """By parameter name, boolean, True to keep."""
        return {name: self._views[name].stored(self._seen(name, *taken)) for name, taken in chosen.items()}

    def _seen(self, name: str, structure: Structure, share: float) -> Tensor:
        fitted = self._structures[structure]
        return fitted.mask(fitted.energy(self._weights[name]), share)

"""Zeros of a structure without training, data or labels: layer by layer, by ADMM on what the network itself gives.

The designer's half of the privacy-preserving framework (Zhan et al., 2020, arXiv 2003.06513): whoever prunes has the network
and synthetic images, and whoever has the data trains with the masks afterwards. `recovery.layerwise` says how it is done.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import fx

from ....frontend.base.errors import InputError
from ...canonicalize import canonicalize
from ...compaction import compact
from ...masks import check_finite
from ...recovery.layer_admm import LayerAdmm
from ...recovery.layerwise import felt_by_outputs, give_structures
from ..constraints import InsideLayers
from ..scores import Evidence
from ..structured import with_choices
from .base import Aim, ChannelMethod, Pruned

__all__ = ["Layerwise"]


@dataclass(frozen=True)
class Layerwise(ChannelMethod):
    """Every layer becomes the one of its structure whose outputs are nearest to the dense network's on calibration inputs.

    Attributes:
        rho: of ADMM, one after another.
        iterations: with each rho.
        ridge: how strongly weights are held to the old ones; above 0.
    """

    name = "layerwise"
    role: ClassVar[str] = "gives structures"
    makes_structures: ClassVar[bool] = True

    rho: tuple[float, ...] = (0.01, 0.1, 1.0)
    iterations: int = 10
    ridge: float = 0.3

    @property
    def looks_at_calls(self) -> bool:
        return True

    def check(self) -> None:
        for name, values in (("rho", self.rho), ("ridge", (self.ridge,))):
            if not values or not all(math.isfinite(value) and value > 0 for value in values):
                raise InputError(f"{name} is {getattr(self, name)}; give numbers above 0")
        if self.iterations < 1:
            raise InputError(f"{self.iterations} iterations do nothing; give 1 or more")

    def check_aim(self, aim: Aim) -> None:
        super().check_aim(aim)
        if not aim.structures:
            raise InputError(
                "the method layerwise makes zeros of a structure; name one, such as structure='row-block:4'"
            )
        if aim.latency is not None:
            raise InputError(
                "a latency cannot be aimed at by the method layerwise; find its sparsity with a score, such as magnitude,"
                " and give layerwise that"
            )

    def prune(self, module: fx.GraphModule, evidence: Evidence, aim: Aim) -> Pruned:
        """`aim.sparsity` is a share of the weights of the layers that take a structure. All of their layers' weights change.
        With the scope ``global`` layers lose as many as add least to the relative errors of all of them together.

        The certificate compares the compacted network with the changed one.
        """
        self.check_aim(aim)
        if not evidence.calls:
            raise InputError("the method layerwise looks at what layers give; give it calibration inputs")
        began = time.perf_counter()
        canonical = canonicalize(module)
        check_finite(canonical)
        constraint = InsideLayers.of(
            canonical, aim.structures, float(aim.sparsity), aim.widths.scope, aim.widths.ignore
        )
        how = LayerAdmm(self.rho, self.iterations, self.ridge)
        if aim.widths.scope == "global":
            weights = felt_by_outputs(canonical, constraint.names, evidence.calls, evidence.seed)
        else:
            weights = {name: canonical.get_parameter(name).detach() for name in constraint.names}
        taken = constraint.with_shares(weights)
        made = give_structures(canonical, taken, evidence.calls, how, evidence.seed)
        seconds = time.perf_counter() - began
        result = compact(made.module, evidence.inputs, made.masks, fold=aim.fold, origin=self._origin(evidence, aim))
        refusals = (
            f"{choice.view.name} stays dense: {choice.reason}" for choice in constraint.choices if choice.refused
        )
        done = dataclasses.replace(
            result,
            zeros=with_choices(result.zeros, constraint.choices),
            refusals=(*result.refusals, *refusals),
            seconds={**result.seconds, "layers": seconds},
        )
        return Pruned(done, recovery=dataclasses.replace(made.recovery, certified=True))

    def _origin(self, evidence: Evidence, aim: Aim) -> dict[str, Any]:
        return {
            "method": self.name,
            "sparsity": float(aim.sparsity),
            "structure": {rule.pattern: str(rule) for rule in aim.structures},
            "scope": aim.widths.scope,
            "ignore": list(aim.widths.ignore),
            "seed": evidence.seed,
            **dataclasses.asdict(self),
        }

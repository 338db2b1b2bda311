"""All methods by name: those of `prune`, of trained levels, of comparisons and of sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from ....frontend.base.errors import InputError
from .admm import Admm
from .base import Method
from .gradual import Gradual
from .iterative import Iterative
from .layerwise import Layerwise
from .one_shot import Grasp, Magnitude, MagnitudeL1, MagnitudeL2, Random, Snip, SynFlow
from .reconstruction import Reconstruction
from .reconvene import Reconvene
from .retraining import OneShotRetraining
from .reweighted import Reweighted
from .sr_ste import SrSte

__all__ = ["METHODS", "find_method", "methods_of"]

M = TypeVar("M", bound=Method)

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Magnitude(),
            MagnitudeL1(),
            MagnitudeL2(),
            Random(),
            Snip(),
            Grasp(),
            SynFlow(),
            Reconstruction(),
            Reconvene(),
            Layerwise(),
            Iterative(),
            OneShotRetraining(),
            Gradual(),
            Admm(),
            Reweighted(),
            SrSte(),
        )
    }
)
"""Each with the options it has unless others are given, see `Method.with_options`."""


def methods_of(kind: type[M]) -> dict[str, M]:
    """The methods of a kind, by name."""
    return {name: method for name, method in METHODS.items() if isinstance(method, kind)}


def find_method(name: str, kind: type[M]) -> M:
    """The method called `name`. Raises InputError, naming those there are, if there is none of that kind."""
    known = methods_of(kind)
    if name not in known:
        wrong = f"the method {name} is none that {kind.role}" if name in METHODS else f"there is no method '{name}'"
        raise InputError(f"{wrong}; choose one of {', '.join(known)}")
    return known[name]

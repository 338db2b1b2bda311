"""Recipes for every operator with a rule, one family of operators to a file."""

from __future__ import annotations

from . import (  # noqa: F401
    creation,
    elementwise,
    in_place,
    joining,
    layers,
    layout,
    normalization,
    padding,
    pooling,
    products,
    random,
    recurrent,
    reduction,
    scattering,
    selection,
    spectra,
    windows,
)  # isort: skip
from .registry import FAMILIES, Family, recipe, recipes

FAMILIES.sort(key=lambda family: -family.weight)
"""The usual operators first: hypothesis shrinks towards them."""

__all__ = ["FAMILIES", "Family", "recipe", "recipes"]

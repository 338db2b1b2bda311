"""Where recipes are kept: how to put one operator into a program, and how often that happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..draft import Draft
from ..program import Ref

__all__ = ["FAMILIES", "Family", "recipe", "recipes"]

Recipe = Callable[[Draft, str], Ref | Sequence[Ref]]
"""Adds a call of an operator to a draft and gives the floating-point values that later steps may read."""


@dataclass(frozen=True)
class Family:
    """Operators that one recipe makes; `weight` is how often the family is chosen beside others."""

    operators: tuple[str, ...]
    make: Recipe
    weight: int


FAMILIES: list[Family] = []


def recipe(operators: str, weight: int = 2) -> Callable[[Recipe], Recipe]:
    """Decorator: the recipe of these operators, names without overload (``aten.`` may be left out), split at blanks."""
    names = tuple(name if "." in name else f"aten.{name}" for name in operators.split())

    def register(make: Recipe) -> Recipe:
        FAMILIES.append(Family(names, make, weight))
        return make

    return register


def recipes() -> dict[str, Family]:
    """All families by operator."""
    return {name: family for family in FAMILIES for name in family.operators}

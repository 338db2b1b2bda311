"""One file per operator family: constants forward, liveness backward, and how to slice."""

from . import (
    attention,
    creation,
    elementwise,
    embedding,
    joining,
    layout,
    linear_map,
    normalization,
    padding,
    pooling,
    recurrent,
    reduction,
    selection,
)
from .base import Rule, register, registered, rule_for

__all__ = [
    "Rule",
    "attention",
    "creation",
    "elementwise",
    "embedding",
    "joining",
    "layout",
    "linear_map",
    "normalization",
    "padding",
    "pooling",
    "recurrent",
    "reduction",
    "register",
    "registered",
    "rule_for",
    "selection",
]

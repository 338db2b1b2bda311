"""One file per operator family: constants forward, liveness backward, and how to slice."""

from importlib.metadata import entry_points

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
    pixel_shuffle,
    pooling,
    recurrent,
    recurrent_cell,
    reduction,
    sampling,
    scattering,
    selection,
    spectra,
    state,
    windows,
)
from .base import Rule, layer_of, register, registered, rule_for, rule_of

_GROUP = "reconvene.rules"


def load_rules_of_other_packages() -> None:
    """Imports the modules that installed packages name under the entry point group ``reconvene.rules``.

    Such a module registers its rules when it is imported; see `register` for an operator that has a rule already.
    """
    for entry in sorted(entry_points(group=_GROUP), key=lambda entry: entry.name):
        entry.load()


load_rules_of_other_packages()

__all__ = [
    "Rule",
    "attention",
    "creation",
    "elementwise",
    "embedding",
    "joining",
    "layer_of",
    "layout",
    "linear_map",
    "load_rules_of_other_packages",
    "normalization",
    "padding",
    "pixel_shuffle",
    "pooling",
    "recurrent",
    "recurrent_cell",
    "reduction",
    "register",
    "registered",
    "rule_for",
    "rule_of",
    "sampling",
    "scattering",
    "selection",
    "spectra",
    "state",
    "windows",
]

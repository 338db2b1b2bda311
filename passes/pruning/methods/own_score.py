"""A score of a person's own: a function that says how dear each weight is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ....frontend.base.errors import InputError
from ....frontend.base.own_code import failure
from ..scores import Request, Score
from .one_shot import OneShot

__all__ = ["OwnScore", "ScoreFunction"]

ScoreFunction = Callable[[str, Tensor], Tensor]
"""Takes the name of a weight and the weight itself; gives a number for each of its entries, larger ones for dearer entries."""


def magnitude(name: str, weight: Tensor) -> Tensor:
    """The absolute values: the shortest example."""
    return weight.abs()


@dataclass(frozen=True)
class OwnScore(OneShot):
    """The lowest of a function's scores go; a channel's is the sum of its weights'.

    Attributes:
        function: called once for every weight of a layer that may lose something, with its name and a copy of it.
    """

    name: ClassVar[str] = "own-score"
    score: ClassVar[str] = "own-score"

    function: ScoreFunction = magnitude

    @property
    def scored_by(self) -> None:
        """None of those by name, so that no data are looked for."""
        return None

    @property
    def scoring(self) -> Score:
        return Score(self.title, lambda request: _weighed(self.title, self.function, request))

    @property
    def title(self) -> str:
        """What the function is called."""
        return str(getattr(self.function, "__qualname__", type(self.function).__qualname__))

    def told(self) -> dict[str, Any]:
        return {"score": self.title}


def _weighed(title: str, function: ScoreFunction, request: Request) -> dict[str, Tensor]:
    """Scores by weight's name. Raises InputError for a function that fails, or gives something else."""
    scores = {}
    for weight in request.weights:
        value = request.tensor(weight).clone()
        try:
            with torch.no_grad():
                found: Any = function(weight.name, value)
        except Exception as error:
            raise failure(f"the score '{title}' fails on '{weight.name}'", error, function) from error
        if not isinstance(found, Tensor) or found.shape != value.shape or found.is_complex():
            told = f"a tensor of {_shape(found)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise InputError(
                f"the score '{title}' gives {told} for '{weight.name}', which is {_shape(value)}; give a tensor of that shape"
            )
        scores[weight.name] = found.detach().to(value.device)
    return scores


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"

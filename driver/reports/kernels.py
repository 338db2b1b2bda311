"""Which kernel each layer was compiled to, and what its zeros brought: as a table, as a page, and for programs."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ...passes.canonicalize import canonicalize
from ...passes.outcome import LayerZeros
from ...passes.zeros import zeros_of
from ..answer import table
from ..wording import cost, density, times
from .zeros import MaskPicture, mask_pictures, total_storage

if TYPE_CHECKING:
    from torch import fx

    from ...backends.built import Built
    from ...backends.choosing.layer_choices import LayerChoice

__all__ = ["SCHEMA", "KernelReport"]

SCHEMA = "reconvene.kernels/1"
_ROUNDED_SHARE = 0.1
"""Of a layer's weights; rounding to 8 bits makes fewer zeros than that, some 1 % of normally distributed weights."""
_TOLD = 6
"""Names in one line."""


@dataclass(frozen=True)
class KernelReport:
    """The layers of a compiled model. Its JSON is documented in docs/report.md.

    Attributes:
        title: the model.
        target: what it was compiled for.
        unit: of costs: ``s`` where kernels were timed, else ``cycles``.
        weights_bytes: of all weights and tables, as the kernels read them.
        zeros: of the weights as the model has them, and what they take by format; none where no weight has any.
        foreign: names of weights with zeros that no kernel of ours reads, such as those of 3-d convolutions: TVM's
            own kernels multiply by their zeros.
        floats: of a quantised model, what is computed in float32 between codes.
        pictures: of their masks, for the page; not part of the JSON.
    """

    title: str
    target: str
    unit: str
    layers: tuple[LayerChoice, ...]
    weights_bytes: int
    zeros: tuple[LayerZeros, ...] = ()
    foreign: tuple[str, ...] = ()
    floats: tuple[str, ...] = ()
    pictures: Mapping[str, MaskPicture] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, built: Built, title: str, module: fx.GraphModule | None = None) -> KernelReport:
        """What `compile` found; with the captured module also what zeros its weights have."""
        weights = built.memory.weights_bytes
        made = cls(title, built.target.name, built.cost_unit, built.layers, weights, floats=built.floats)
        if module is None:
            return made
        canonical = canonicalize(module)
        zeros = zeros_of(canonical)
        if not zeros:
            return made
        pictures = mask_pictures(canonical, zeros)
        return dataclasses.replace(made, zeros=zeros, foreign=_foreign(zeros, made.layers), pictures=pictures)

    @property
    def sparse(self) -> tuple[LayerChoice, ...]:
        """Layers with zeros in their weights; of a quantised model with more than rounding makes."""
        least = _ROUNDED_SHARE if self.quantised else 0.0
        return tuple(layer for layer in self.layers if layer.zeros > least * layer.weights)

    @property
    def quantised(self) -> int:
        """How many layers multiply codes."""
        return sum(layer.calls for layer in self.layers if layer.dtype in ("int8", "uint8"))

    @property
    def families(self) -> Mapping[str, int]:
        """How many layers each family of kernels computes."""
        return Counter(layer.kernel for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types, with the name and version of the schema."""
        said = dataclasses.asdict(self)
        del said["pictures"]
        return {"schema": SCHEMA, **said}

    def to_json(self) -> str:
        """The same as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_html(self) -> str:
        """The same as one HTML page that needs no network."""
        from markupsafe import Markup

        from .figures import cost_figure, density_figure, figure_html
        from .page import render

        figures = {
            "density": density_figure(self.zeros) if self.zeros else None,
            "costs": cost_figure(self.sparse, self.unit) if self.sparse else None,
        }
        return render(
            "kernels.html.j2", title=self.title, report=self, gain=gain, storage=total_storage(self.zeros),
            plots={name: Markup(figure_html(figure)) for name, figure in figures.items() if figure is not None},
        )  # fmt: skip

    def table(self) -> Table:
        """One line for every layer with zeros."""
        numbers = ("not zero", "cost", "dense", "gain")
        made = table("layer", "zeros", "kernel", *numbers, right=numbers, title="Layers with zeros")
        for layer in self.sparse:
            made.add_row(
                layer.name, layer.structure or "", layer.kernel, density(layer.weights, layer.zeros),
                cost(layer.cost, self.unit), cost(layer.dense_cost, self.unit), gain(layer),
            )  # fmt: skip
        return made

    def lines(self) -> tuple[str, ...]:
        """How many layers have which kernels."""
        counted = ", ".join(f"{count} {family}" for family, count in self.families.items())
        quantised = f"{self.quantised} of {sum(layer.calls for layer in self.layers)} layers on 8-bit integers"
        return (
            *([f"layers: {counted}"] if counted else []),
            *([quantised] if self.quantised else []),
            *([f"in float32 between them: {_first(self.floats)}"] if self.floats else []),
            *([self.without_kernels] if self.foreign else []),
        )

    @property
    def without_kernels(self) -> str:
        """Which zeros bring nothing, since no kernel of ours reads the weight."""
        return f"zeros without a kernel that skips them, computed by TVM's own: {_first(self.foreign)}"


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return f"{', '.join(names[:_TOLD])}{more}"


def _foreign(zeros: Sequence[LayerZeros], layers: Sequence[LayerChoice]) -> tuple[str, ...]:
    names = {weight.name for weight in zeros}
    renamed = {layer.weights for layer in layers if layer.name not in names}  # Those may be of any weight as large.
    known = {layer.name for layer in layers}
    return tuple(
        weight.name for weight in zeros if weight.zeros and weight.name not in known and weight.weights not in renamed
    )


def gain(layer: LayerChoice) -> str:
    """How many times less a layer costs than by the best kernel that multiplies by its zeros: ``3.4x``."""
    return times(layer.dense_cost, layer.cost) if layer.cost and layer.dense_cost else "–"

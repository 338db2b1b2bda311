"""Operators on codes (`passes.integers`), which Relax has not: calls that are kept by name, their literals as constants."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import fx
from tvm import relax

from ...passes.integers.operators import NAMES
from ..graph.code_rules import PREFIX

__all__ = ["KEPT"]


def _kept(node: fx.Node, importer: Any) -> Any:
    values = [value if isinstance(value, relax.Expr) else _literal(value) for value in importer.retrieve_args(node)]
    given = node.meta["val"]
    kind = relax.TensorType([int(extent) for extent in given.shape], str(given.dtype).removeprefix("torch."))
    name = PREFIX + str(node.target.__name__).partition(".")[0]  # type: ignore[union-attr]
    return importer.block_builder.emit(relax.call_dps_packed(name, relax.Tuple(values), kind))


def _literal(value: Any) -> Any:
    array = np.asarray(value)
    return relax.const(array.astype("float64" if array.dtype.kind == "f" else "int64"))


KEPT: Mapping[str, Any] = MappingProxyType({f"{name}.default": _kept for name in NAMES})
"""Converters by operator."""

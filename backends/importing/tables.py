"""Tensors that depend on shapes alone, for decompositions, which run on shapes and can hold no tensor of their own.

A table is a function of integers. Where a decomposition calls it, the program gets an operator with its name and its integers,
and the importer puts the tensor there. So a program holds no large literals, and equal tables are equal code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from tvm import relax

from ..dtypes import torch_dtype

__all__ = ["CONVERTERS", "stored"]

_MADE: dict[str, Callable[..., np.ndarray[Any, Any]]] = {}


def stored(make: Callable[..., np.ndarray[Any, Any]]) -> Callable[..., Tensor]:
    """`make` as a function for decompositions; it takes integers, and its name is its own among the tables."""
    _MADE[make.__name__] = make

    def table(*arguments: int) -> Tensor:
        found: Tensor = torch.ops.reconvene.table.default(make.__name__, [int(argument) for argument in arguments])
        return found

    return table


@cache
def _array(name: str, *arguments: int) -> np.ndarray[Any, Any]:
    return _MADE[name](*arguments)


@torch.library.custom_op("reconvene::table", mutates_args=())
def _table(name: str, arguments: list[int]) -> Tensor:
    return torch.from_numpy(_array(name, *arguments).copy())


@_table.register_fake
def _(name: str, arguments: list[int]) -> Tensor:
    array = _array(name, *arguments)
    return torch.empty(array.shape, dtype=torch_dtype(str(array.dtype)))


def _convert(node: fx.Node, importer: Any) -> Any:
    name, arguments = node.args
    array = _array(str(name), *[int(argument) for argument in arguments])  # type: ignore[union-attr,arg-type]
    return relax.const(array, str(array.dtype))


CONVERTERS = {"table.default": _convert}
"""By the operator's name, as the importer takes them."""

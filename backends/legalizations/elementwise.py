"""Functions of single elements of operands that are broadcast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import te, topi

__all__ = ["elementwise"]

Expression = Any


def elementwise(function: Callable[..., Expression], name: str) -> Callable[[Any, Any], Any]:
    """Of two operands that are broadcast."""

    def legalize(builder: Any, call: Any) -> Any:
        shape = list(call.ty.shape)

        def both(*operands: Any) -> Any:
            wide = [topi.broadcast_to(side, shape) if isinstance(side, te.Tensor) else None for side in operands]

            def element(*index: Any) -> Expression:
                return function(*[
                    side if tensor is None else tensor(*index) for side, tensor in zip(operands, wide, strict=True)
                ])  # fmt: skip

            return te.compute(shape, element, name=name)

        return builder.call_te(both, *call.args, primfunc_name_hint=name)

    return legalize

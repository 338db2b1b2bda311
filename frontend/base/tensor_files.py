"""Tensors in a safetensors file, from bytes that were read once."""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from .json_text import parse_json
from .limits import check_limit

__all__ = ["has_odd_booleans", "parse_tensors"]


def has_odd_booleans(tensor: torch.Tensor) -> bool:
    """Whether a tensor that was read from a file has booleans of other bytes than 0 and 1, which operators take differently."""
    if tensor.dtype != torch.bool or not tensor.numel():
        return False
    return bool(torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).max() > 1)


def parse_tensors(content: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a file by name, and the texts that it carries beside them.

    The library refuses tensors that overlap, leave holes or lie outside; of two with one name it would take either.

    Raises:
        ValueError: the bytes are no such file, are damaged, or claim more than the limits allow.
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise ValueError("it has no header")
    check_limit("text", length, "its header")
    header = parse_json(content[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    check_limit("records", len(header), "its header")
    try:
        tensors = load(content)
    except (SafetensorError, KeyError, TypeError, OverflowError, RuntimeError) as error:
        raise ValueError((str(error) or type(error).__name__).splitlines()[0]) from None
    for name, tensor in tensors.items():
        if has_odd_booleans(tensor):
            raise ValueError(f"'{name}' holds booleans that are neither true nor false")
    return tensors, dict(header.get("__metadata__") or {})

"""Tensors in a safetensors file, from bytes that were read once."""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from .json_text import parse_json
from .limits import check_limit

__all__ = ["parse_tensors"]


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
    try:
        tensors = load(content)
    except (SafetensorError, KeyError, TypeError, OverflowError, RuntimeError) as error:
        raise ValueError((str(error) or type(error).__name__).splitlines()[0]) from None
    return tensors, dict(header.get("__metadata__") or {})

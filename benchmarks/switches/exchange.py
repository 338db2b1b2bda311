"""Requests for a served portfolio, and answers, as bytes; and what the answers must be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from reconvene.backends.built import load_bundle
from reconvene.driver.example_inputs import random_input
from reconvene.driver.portfolio.manifest import Portfolio, listed_bundle
from reconvene.driver.serving.protocol import LENGTH_HEADER, tensor_metadata

__all__ = ["example", "raw_outputs", "raw_request", "response"]


def example(portfolio: Portfolio) -> list[np.ndarray[Any, Any]]:
    specs = enumerate(portfolio.inputs)
    return [random_input(spec.shape, getattr(torch, spec.dtype), 7 + index).numpy() for index, spec in specs]


def raw_request(portfolio: Portfolio, inputs: Sequence[np.ndarray[Any, Any]]) -> bytes:
    """An inference request with binary inputs and outputs, HTTP's head included."""
    described = tensor_metadata(portfolio.inputs)
    for entry, array in zip(described, inputs, strict=True):
        entry["parameters"] = {"binary_data_size": array.nbytes}
    text = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
    body = b"".join([text, *(array.tobytes() for array in inputs)])
    lines = [f"POST /v2/models/{portfolio.name}/infer HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += [f"{LENGTH_HEADER}: {len(text)}", "", ""]
    return "\r\n".join(lines).encode() + body


def raw_outputs(portfolio: Portfolio, name: str, inputs: Sequence[np.ndarray[Any, Any]]) -> bytes:
    """What a variant gives, as the answer's bytes."""
    tensors = load_bundle(listed_bundle(portfolio, portfolio.variant(name), "host")).run_tensors(inputs)
    return b"".join(np.ascontiguousarray(tensor.numpy()).tobytes() for tensor in tensors)


async def response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one HTTP answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))

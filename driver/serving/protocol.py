"""The open inference protocol, version 2, without a network: bytes to arrays, arrays to bytes.

The protocol is the one that KServe and others describe, with the extension for binary tensor data: a request's or an answer's
JSON may be followed by tensors as raw little-endian bytes, and a header then says how long the JSON is.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ...backends.dtypes import DTYPES, tensor_bytes
from ...backends.tensor_spec import TensorSpec
from ...frontend.base.json_text import parse_json

__all__ = [
    "LENGTH_HEADER",
    "InferRequest",
    "RequestError",
    "infer_answer",
    "infer_request",
    "json_length",
    "json_object",
    "tensor_metadata",
]

LENGTH_HEADER = "Inference-Header-Content-Length"
"""Says how many bytes of a body are JSON, if tensors follow."""

Array = np.ndarray[Any, Any]


class RequestError(Exception):
    """A request that cannot be answered; ``str(error)`` is one line for whoever sent it.

    Attributes:
        status: of the HTTP answer.
        limit: that was met, see `limits.COUNTED`; None if it is another matter.
    """

    def __init__(self, message: str, status: int = 400, limit: str | None = None) -> None:
        super().__init__(message)
        self.status, self.limit = status, limit


@dataclass(frozen=True)
class InferRequest:
    """What a client wants to have computed.

    Attributes:
        inputs: one for each of the model's, in its order.
        outputs: index of each output that is wanted, and whether as raw bytes.
    """

    id: str | None
    inputs: tuple[Array, ...] = field(repr=False)
    outputs: tuple[tuple[int, bool], ...]


def tensor_metadata(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    """`specs` as the protocol's model metadata lists them; what codes stand for are parameters, which it leaves free."""
    return [
        {
            "name": spec.name,
            "datatype": DTYPES[spec.dtype].wire or spec.dtype,
            "shape": list(spec.shape),
            **({} if spec.codes is None else {"parameters": asdict(spec.codes)}),
        }
        for spec in specs
    ]


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` is. Raises RequestError if it is none."""
    try:
        found = parse_json(body)
    except ValueError as error:
        raise RequestError(f"the request is not JSON: {_short(error)}") from None
    if not isinstance(found, dict):
        raise RequestError(f"the request is {_short(found)}, not a JSON object")
    return found


def infer_request(
    body: bytes, binary_header: str | None, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> InferRequest:
    """The request that `body` is, for a model with these inputs and outputs.

    Args:
        binary_header: the value of `LENGTH_HEADER`, if there is one.

    Raises:
        RequestError: it is malformed, or does not fit the model.
    """
    length = json_length(binary_header, len(body))
    request = json_object(body[:length])
    identity = request.get("id")
    if identity is not None and not isinstance(identity, str):
        raise RequestError(f"the request's id is {_short(identity)}, not a string")
    arrays = _inputs(_objects(request, "inputs"), memoryview(body)[length:], inputs)
    binary = _flag(_parameters(request), "binary_data_output", False)
    wanted = _objects(request, "outputs") if request.get("outputs") is not None else None
    return InferRequest(identity, arrays, _outputs(wanted, binary, outputs))


def infer_answer(
    model: str, variant: str, request: InferRequest, specs: Sequence[TensorSpec], outputs: Sequence[Array]
) -> tuple[bytes, int | None]:
    """The answer's body, and how long its JSON is if raw bytes follow.

    Raises:
        RequestError: an output that is wanted as JSON holds numbers that JSON has no form for.
    """
    described: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for index, binary in request.outputs:
        spec, array = specs[index], np.ascontiguousarray(outputs[index])
        entry: dict[str, Any] = {"name": spec.name, "datatype": DTYPES[spec.dtype].wire, "shape": list(array.shape)}
        if binary:
            raw.append(array.tobytes())
            entry["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise RequestError(f"output '{spec.name}' is not finite; ask for it with binary_data")
            entry["data"] = array.ravel().tolist()
        described.append(entry)
    answer: dict[str, Any] = {"model_name": model, "model_version": variant, "outputs": described}
    if request.id is not None:
        answer["id"] = request.id
    text = json.dumps(answer, separators=(",", ":")).encode()
    return (b"".join([text, *raw]), len(text)) if raw else (text, None)


def json_length(value: str | None, size: int) -> int:
    """How many of a body's `size` bytes are JSON, by the value of `LENGTH_HEADER`. Raises RequestError if it is not usable."""
    if value is None:
        return size
    if not re.fullmatch(r"[0-9]{1,12}", value, re.ASCII) or int(value) > size:
        raise RequestError(f"{LENGTH_HEADER} is {_short(value)}, of a body of {size} bytes")
    return int(value)


def _inputs(entries: Sequence[Mapping[str, Any]], raw: memoryview, specs: Sequence[TensorSpec]) -> tuple[Array, ...]:
    named = {spec.name: spec for spec in specs}
    found: dict[str, Array] = {}
    for entry in entries:
        name = entry.get("name")
        spec = named.get(name) if isinstance(name, str) else None
        if spec is None:
            raise RequestError(f"the model has no input {_short(name)}; it takes {', '.join(named)}")
        if spec.name in found:
            raise RequestError(f"input '{spec.name}' is given twice")
        size = _parameters(entry).get("binary_data_size")
        _check_kind(entry, spec)
        if size is None:
            found[spec.name] = _from_json(entry, spec)
        else:
            found[spec.name], raw = _from_bytes(entry, size, raw, spec)
    if missing := [spec.name for spec in specs if spec.name not in found]:
        raise RequestError(f"input '{missing[0]}' is missing")
    if raw.nbytes:
        raise RequestError(f"{raw.nbytes} bytes follow the last input")
    return tuple(found[spec.name] for spec in specs)


def _check_kind(entry: Mapping[str, Any], spec: TensorSpec) -> None:
    shape, datatype = entry.get("shape"), entry.get("datatype")
    if datatype != DTYPES[spec.dtype].wire:
        raise RequestError(f"input '{spec.name}' must be {DTYPES[spec.dtype].wire}, got {_short(datatype)}")
    # `1 == True`, and neither 1.0 nor true is a size.
    whole = isinstance(shape, list) and all(type(size) is int for size in shape)
    if not whole or shape != list(spec.shape):
        raise RequestError(f"input '{spec.name}' must be of shape {list(spec.shape)}, got {_short(shape)}")


def _from_json(entry: Mapping[str, Any], spec: TensorSpec) -> Array:
    """The numbers of ``data``, nested as the shape is or flat."""
    data = entry.get("data")
    if not isinstance(data, list):
        raise RequestError(f"input '{spec.name}' needs data, an array, got {_short(data)}")
    count = math.prod(spec.shape)
    try:
        array = np.array(data)
    except (ValueError, OverflowError):
        raise RequestError(f"the data of input '{spec.name}' are not nested evenly") from None
    if array.size != count or array.shape not in (spec.shape, (count,)):
        raise RequestError(
            f"the data of input '{spec.name}' have the shape {_short(list(array.shape))} instead of"
            f" {list(spec.shape)} or [{count}]"
        )
    dtype = np.dtype(spec.dtype)
    allowed = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}[dtype.kind]
    if count and array.dtype.kind not in allowed:
        raise RequestError(f"the data of input '{spec.name}' are not all of {DTYPES[spec.dtype].wire}")
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if (dtype.kind == "f" and not np.isfinite(cast).all()) or (dtype.kind in "iu" and not (cast == array).all()):
        raise RequestError(f"the data of input '{spec.name}' do not fit {DTYPES[spec.dtype].wire}")
    return np.ascontiguousarray(cast.reshape(spec.shape))


def _from_bytes(entry: Mapping[str, Any], size: object, raw: memoryview, spec: TensorSpec) -> tuple[Array, memoryview]:
    """The tensor that `raw` begins with, and the bytes after it."""
    if "data" in entry:
        raise RequestError(f"input '{spec.name}' has both data and binary_data_size")
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    needed = tensor_bytes(spec.shape, spec.dtype)
    if type(size) is not int or size != needed:
        raise RequestError(f"input '{spec.name}' has binary_data_size {_short(size)} instead of {needed}")
    if raw.nbytes < needed:
        raise RequestError(f"input '{spec.name}' has {raw.nbytes} bytes instead of {needed}")
    part = raw[:needed]
    if dtype.kind == "b" and np.frombuffer(part, np.uint8).max(initial=0) > 1:
        raise RequestError(f"the data of input '{spec.name}' are not all of BOOL")
    return np.frombuffer(part, dtype).astype(spec.dtype).reshape(spec.shape), raw[needed:]


def _outputs(
    entries: Sequence[Mapping[str, Any]] | None, binary: bool, specs: Sequence[TensorSpec]
) -> tuple[tuple[int, bool], ...]:
    if entries is None:
        return tuple((index, binary) for index in range(len(specs)))
    places = {spec.name: index for index, spec in enumerate(specs)}
    found: dict[int, bool] = {}
    for entry in entries:
        name = entry.get("name")
        if not isinstance(name, str) or name not in places:
            raise RequestError(f"the model has no output {_short(name)}; it gives {', '.join(places)}")
        parameters = _parameters(entry)
        if parameters.get("classification"):
            raise RequestError("classification is not supported; ask for the output itself")
        if places[name] in found:
            raise RequestError(f"output '{name}' is asked for twice")
        found[places[name]] = _flag(parameters, "binary_data", binary)
    return tuple(found.items())


def _objects(request: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = request.get(key)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise RequestError(f"the request needs '{key}', an array of objects, got {_short(found)}")
    return found


def _parameters(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    found = entry.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise RequestError(f"parameters are {_short(found)}, not a JSON object")
    return found


def _flag(parameters: Mapping[str, Any], key: str, default: bool) -> bool:
    found = parameters.get(key, default)
    if not isinstance(found, bool):
        raise RequestError(f"the parameter {key} is {_short(found)}, not true or false")
    return found


def _short(value: object) -> str:
    """`value` on one line that is not too long for a message."""
    text = str(value) if isinstance(value, Exception) else reprlib.repr(value)
    text = text.encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 80 else f"{text[:77]}..."

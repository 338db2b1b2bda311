"""A `Network` as the bytes of a .tflite file, by the schema that LiteRT's wheel brings."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np

from litert.network import Network, Operation, Tensor

__all__ = ["schema_module", "tflite"]

_OPTIONS = {
    "ADD": "AddOptions", "CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEQUANTIZE": "DequantizeOptions", "FULLY_CONNECTED": "FullyConnectedOptions", "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions", "PAD": "PadOptions", "QUANTIZE": "QuantizeOptions", "RESHAPE": "ReshapeOptions",
}  # fmt: skip
"""The record of options of each operator."""

_VERSIONS = {
    "ADD": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "DEQUANTIZE": 2, "FULLY_CONNECTED": 12, "MAX_POOL_2D": 2, "MEAN": 2,
    "PAD": 2, "QUANTIZE": 2, "RESHAPE": 1,
}  # fmt: skip
"""From which on an operator takes int8, and weights of a scale for each output."""

_LARGEST_ENUM = 127
"""Of the older field of an operator's code."""


def tflite(network: Network, schema: Any) -> bytes:
    """The file, with the classes of `schema_module`."""
    return _File(schema).bytes_of(network)


def schema_module(path: Path) -> Any:
    """``schema_py_generated.py`` of the package ``ai_edge_litert``, which is for another machine and cannot be imported."""
    found = importlib.util.spec_from_file_location("litert_schema", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


class _File:
    def __init__(self, schema: Any) -> None:
        self.schema = schema
        # The first one is empty by definition, and is that of whatever is computed.
        self.buffers = [schema.BufferT()]
        self.tensors: list[Any] = []
        self.places: dict[Tensor, int] = {}
        self.codes: dict[str, int] = {}

    def bytes_of(self, network: Network) -> bytes:
        schema = self.schema
        graph = schema.SubGraphT()
        graph.inputs = [*map(self.place, network.inputs)]
        graph.operators = [self.operator(operation) for operation in network.operations]
        graph.outputs = [*map(self.place, network.results)]
        graph.tensors = self.tensors
        graph.name = b"main"
        model = schema.ModelT()
        model.version = 3
        model.subgraphs, model.buffers, model.operatorCodes = [graph], self.buffers, [*map(self.code, self.codes)]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def place(self, tensor: Tensor) -> int:
        """The index of a tensor, which is added the first time."""
        if tensor not in self.places:
            self.places[tensor] = len(self.tensors)
            self.tensors.append(self.tensor(tensor))
        return self.places[tensor]

    def tensor(self, tensor: Tensor) -> Any:
        made = self.schema.TensorT()
        made.name, made.shape, made.hasRank = tensor.name.encode(), list(tensor.shape), True
        made.type = getattr(self.schema.TensorType, tensor.dtype.upper())
        if tensor.data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)
            self.buffers.append(buffer)
            made.buffer = len(self.buffers) - 1
        if tensor.scales:
            made.quantization = scheme = self.schema.QuantizationParametersT()
            scheme.scale, scheme.zeroPoint = list(tensor.scales), [tensor.zero] * len(tensor.scales)
            scheme.quantizedDimension = tensor.axis
        return made

    def operator(self, operation: Operation) -> Any:
        made = self.schema.OperatorT()
        made.opcodeIndex = self.codes.setdefault(operation.kind, len(self.codes))
        made.inputs = [self.place(tensor) for tensor in operation.inputs]
        made.outputs = [self.place(operation.result)]
        name = _OPTIONS[operation.kind]
        made.builtinOptionsType = getattr(self.schema.BuiltinOptions, name)
        made.builtinOptions = options = getattr(self.schema, f"{name}T")()
        enums = {"padding": self.schema.Padding, "fusedActivationFunction": self.schema.ActivationFunctionType}
        for key, value in operation.options.items():
            if not hasattr(options, key):
                raise AttributeError(f"{name} of LiteRT's schema has no field '{key}'")
            setattr(options, key, getattr(enums[key], value) if key in enums else value)
        return made

    def code(self, kind: str) -> Any:
        made = self.schema.OperatorCodeT()
        made.builtinCode = getattr(self.schema.BuiltinOperator, kind)
        made.deprecatedBuiltinCode = min(made.builtinCode, _LARGEST_ENUM)
        made.version = _VERSIONS[kind]
        return made

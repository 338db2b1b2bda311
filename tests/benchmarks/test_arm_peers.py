"""LiteRT's file says what our network computes: shown by computing what it says. And figures of both stand side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arm_peers import codes_for
from litert import file
from litert.board import board_for, processor_files
from litert.network import Network, Operation, Tensor, network_of
from litert.page import page, summary
from litert.parts import CONVOLUTIONS, DEPTHWISE, OTHERS, kinds_of_ours, parts_of
from torch import nn
from torch.nn import functional as F

from reconvene import capture, quantize
from reconvene.backends.machines.targets import find_target
from reconvene.frontend.base.errors import InputError
from reconvene.passes.fold_batch_norm import fold_batch_norm


class Small(nn.Module):
    """Every kind of layer that is written; windows that TensorFlow pads as PyTorch does, and one that it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 8, 1)
        self.last = nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        one = F.max_pool2d(F.relu(self.norm(self.first(images))), 3, 2, 1)
        two = F.relu(one + self.point(F.relu6(self.depth(one))))
        return self.last(F.adaptive_avg_pool2d(two, 1).flatten(1))


@pytest.fixture(scope="module")
def small() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    network = Small().eval()
    network.norm.running_mean.uniform_(-0.2, 0.2)
    return network, torch.randn(1, 3, 17, 15)


@pytest.fixture(scope="module")
def coded(small: tuple[nn.Module, torch.Tensor]) -> tuple[Network, torch.Tensor, float]:
    """The network in int8, PyTorch's result and its step."""
    module, given = small
    quantised = quantize(module, (given,), example_inputs=(given,), observer="min-max").module
    with torch.no_grad():
        expected = quantised(given)
    codes = codes_for(expected)
    return network_of(quantised, codes), expected, codes.scale


RANGES = {"NONE": (-torch.inf, torch.inf), "RELU": (0, torch.inf), "RELU6": (0, 6)}
"""Of activations."""


def computed(network: Network, given: torch.Tensor) -> np.ndarray[Any, Any]:
    """What `network` says, in float64: numbers that codes stand for, rounded to codes after every operator of int8."""
    values = {network.inputs[0]: given.double()}

    def value(tensor: Tensor) -> torch.Tensor:
        if tensor.data is None:
            return values[tensor]
        data = torch.from_numpy(tensor.data.copy()).double()
        if not tensor.scales:
            return data
        shape = [1] * data.dim()
        shape[tensor.axis] = -1
        return data * torch.tensor(tensor.scales, dtype=torch.float64).view(shape if len(tensor.scales) > 1 else [1])

    for operation in network.operations:
        found = _applied(operation, [value(tensor) for tensor in operation.inputs])
        low, high = RANGES[operation.options.get("fusedActivationFunction", "NONE")]
        values[operation.result] = _rounded(found.clamp(low, high), operation.result)
    (result,) = network.results
    return values[result].numpy()


def _rounded(values: torch.Tensor, tensor: Tensor) -> torch.Tensor:
    if tensor.dtype != "int8":
        return values
    (scale,) = tensor.scales
    return ((values / scale).round() + tensor.zero).clamp(-128, 127).sub(tensor.zero) * scale


def _applied(operation: Operation, inputs: list[torch.Tensor]) -> torch.Tensor:
    """One of LiteRT's operators on images ``(N, C, H, W)``, by its own definition of padding."""
    options = operation.options
    given = inputs[0]
    if operation.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D"):
        pools = operation.kind == "MAX_POOL_2D"
        depthwise = operation.kind == "DEPTHWISE_CONV_2D"
        weight = None if pools else inputs[1].permute((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
        window = (options["filterHeight"], options["filterWidth"]) if pools else weight.shape[2:]  # type: ignore[union-attr]
        stride = (options["strideH"], options["strideW"])
        widths = [0, 0, 0, 0]
        if options["padding"] == "SAME":
            for axis in range(2):
                extent = given.shape[2 + axis]
                missing = max(0, (-(-extent // stride[axis]) - 1) * stride[axis] + window[axis] - extent)
                widths[2 - 2 * axis : 4 - 2 * axis] = [missing // 2, missing - missing // 2]
        if pools:
            return F.max_pool2d(F.pad(given, widths, value=-torch.inf), window, stride)
        groups = given.shape[1] if depthwise else 1
        return F.conv2d(F.pad(given, widths), weight, inputs[2], stride, groups=groups)  # type: ignore[arg-type]
    if operation.kind == "PAD":
        (top, bottom), (left, right) = inputs[1].int().tolist()[1:3]
        return F.pad(given, (left, right, top, bottom))
    if operation.kind == "ADD":
        return given + inputs[1]
    if operation.kind == "MEAN":
        return given.mean((2, 3), keepdim=options["keepDims"])
    if operation.kind == "RESHAPE":
        return given.reshape(options["newShape"])
    if operation.kind == "FULLY_CONNECTED":
        return F.linear(given, inputs[1], inputs[2])
    assert operation.kind in ("QUANTIZE", "DEQUANTIZE")
    return given


def test_in_float32_the_file_says_what_the_network_computes(small: tuple[nn.Module, torch.Tensor]) -> None:
    module, given = small
    network = network_of(fold_batch_norm(capture(module, (given,))))
    with torch.no_grad():
        expected = module(given).numpy()
    assert np.abs(computed(network, given) - expected).max() < 1e-5
    kinds = [operation.kind for operation in network.operations]
    assert kinds == [
        "CONV_2D", "PAD", "MAX_POOL_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "ADD", "MEAN", "RESHAPE", "FULLY_CONNECTED",
    ]  # fmt: skip


def test_in_int8_it_says_the_same_codes_to_a_step(
    small: tuple[nn.Module, torch.Tensor], coded: tuple[Network, torch.Tensor, float]
) -> None:
    network, expected, step = coded
    assert np.abs(computed(network, small[1]) - expected.numpy()).max() <= 1.01 * step
    layers = [one for one in network.operations if one.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")]
    for layer in layers:
        source, weight, bias = layer.inputs
        assert (weight.dtype, bias.dtype, len(weight.scales)) == ("int8", "int32", weight.shape[weight.axis])
        assert bias.scales == pytest.approx([scale * source.scales[0] for scale in weight.scales])
    assert all(one.result.dtype == "int8" for one in network.operations[:-1])


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(
    "window,stride,padding", [(3, 1, 1), (3, 2, 1), (5, 2, 2), (3, 2, 0), (1, 1, 1), (2, 2, 1), (7, 3, 3)]
)
def test_windows_lie_where_pytorch_lays_them(size: int, window: int, stride: int, padding: int) -> None:
    torch.manual_seed(size)
    layer = nn.Sequential(nn.Conv2d(2, 3, window, stride, padding)).eval()
    given = torch.randn(1, 2, size, size + 1)
    with torch.no_grad():
        expected = layer(given).numpy()
    found = computed(network_of(fold_batch_norm(capture(layer, (given,)))), given)
    assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize(
    "module,size,says",
    [
        (nn.Conv2d(4, 4, 3, groups=2), 8, "'conv2d' is of 2 groups"),
        (nn.AvgPool2d(2), 8, "'avg_pool2d' is a mean over less than the image"),
        (nn.Flatten(), 8, "'flatten' puts the pixels of channels in an order"),
        (nn.MaxPool2d(3, 2, 1), 8, "'max_pool2d' pools numbers below 0 with padding"),
        (nn.Hardtanh(), 8, "'hardtanh' is no activation of the layer before it"),
        (nn.Softmax(1), 8, "is no operator that is written here"),
    ],
)
def test_what_is_not_written_is_refused_by_name(module: nn.Module, size: int, says: str) -> None:
    with pytest.raises(InputError, match=says):
        network_of(fold_batch_norm(capture(module.eval(), (torch.randn(1, 4, size, size),))))


def test_layers_of_a_kind_alone_are_all_layers_of_it(coded: tuple[Network, torch.Tensor, float]) -> None:
    network = coded[0]
    parts = parts_of(network)
    assert {kind: len(part.operations) for kind, part in parts.items()} == {OTHERS: 7, CONVOLUTIONS: 3, DEPTHWISE: 1}
    assert sum(len(part.operations) for part in parts.values()) == len(network.operations)
    for part in parts.values():
        made = set(part.inputs)
        for operation in part.operations:
            assert all(tensor in made or tensor.data is not None for tensor in operation.inputs)
            made.add(operation.result)
        assert set(part.results) <= made
    ours = kinds_of_ours(
        {"winograd_0": 2.0, "integer_convolution_11": 3.0, "integer_depthwise_0": 4.0, "pack_0": 5.0}, 1.0
    )
    assert ours == {CONVOLUTIONS: 5, DEPTHWISE: 4, OTHERS: 6}


def test_a_board_says_which_core_it_has() -> None:
    new, old = (processor_files(find_target(name)) for name in ("rpi5", "rpi4"))
    assert new["proc/cpuinfo"].count("CPU part\t: 0xd0b") == 4 and "asimddp" in new["proc/cpuinfo"]
    assert old["proc/cpuinfo"].count("CPU part\t: 0xd08") == 4 and "asimddp" not in old["proc/cpuinfo"]
    assert new["sys/devices/system/cpu/cpu3/regs/identification/midr_el1"] == "0x00000000410fd0b3\n"
    assert old["sys/devices/system/cpu/present"] == "0-3\n"


def test_a_folder_without_litert_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sh benchmarks/litert/sysroot\.sh"), board_for(find_target("rpi5"), tmp_path):
        pass


def row(engine: str, cycles: float, **changed: Any) -> dict[str, Any]:
    """What one engine took, in millions of cycles."""
    made = {
        "engine": engine, "network": "net", "target": "rpi5", "dtype": "int8", "instructions": 3e6, "cycles": cycles * 1e6,
        "throughput_cycles": 1e6, "multiply_add_cycles": 5e5, "memory_mb": 2.0, "core_model": "Neoverse N1",
        "tools": {"llvm": "LLVM 22"},
    }  # fmt: skip
    return made | ({"layers": 4, "float_layers": 1} if engine == "reconvene" else {"difference": 1.25}) | changed


def test_engines_stand_side_by_side_for_the_same_board_and_type() -> None:
    rows = [
        row("LiteRT 2.3.0", 4, kinds={CONVOLUTIONS: 3_000_000, OTHERS: 1_000_000}), row("LiteRT 2.3.0", 9, target="rpi4"),
        row("reconvene", 1, dtype="float32"), row("reconvene", 3, kinds={CONVOLUTIONS: 1_500_000, OTHERS: 1_500_000}),
    ]  # fmt: skip
    found = page({"environment": {"seed": 0}, "rows": rows})
    lines = [line for line in found.splitlines() if line.startswith("| net |")]
    assert lines == [
        "| net | int8 | rpi5 | 3.0 | 4.0 | 1.0 | 0.5 | 2.0 | 1.2 | 3.0 | 3.0 | 1.0 | 0.5 | 2.0 | 1 of 4 | 0.75 |",
        f"| net | int8 | rpi5 | {CONVOLUTIONS} | 3.00 | 1.50 | 0.50 |",
        f"| net | int8 | rpi5 | {OTHERS} | 1.00 | 1.50 | 1.50 |",
    ]
    assert (
        "seed 0; LiteRT 2.3.0; rpi4 by LLVM's model of Neoverse N1; rpi5 by LLVM's model of Neoverse N1; LLVM 22."
        in found
    )
    assert summary({"rows": rows}).splitlines()[2:] == ["| net | int8 | rpi5 | 4.0 | 3.0 | 0.75 |"]
    assert "By kind" not in page({"environment": {}, "rows": [row("LiteRT 2.3.0", 4), row("reconvene", 3)]})


SCHEMA = """
class Record:
    buffer = 0
    builtinCode = 0
    def __getattr__(self, name):
        raise AttributeError(name)

class Enum:
    def __getattr__(self, name):
        return name

packed = []

class ModelT(Record):
    def Pack(self, builder):
        packed.append(self)
        builder.StartObject(0)
        return builder.EndObject()

class BuiltinOperator:
    CONV_2D, QUANTIZE, DEQUANTIZE = 3, 114, 6

class ConvolutionT(Record):
    padding = strideH = strideW = dilationHFactor = dilationWFactor = fusedActivationFunction = None

BufferT = TensorT = SubGraphT = OperatorT = OperatorCodeT = QuantizationParametersT = Record
Conv2DOptionsT, QuantizeOptionsT, DequantizeOptionsT = ConvolutionT, Record, Record
TensorType = BuiltinOptions = Padding = ActivationFunctionType = Enum()
"""
"""LiteRT's classes of that name, as far as they are used; fields that they do not have are an error."""


def test_the_file_holds_tensors_operators_and_constants_by_index(tmp_path: Path) -> None:
    layer = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.ReLU()).eval()
    given = torch.randn(1, 2, 4, 4)
    quantised = quantize(layer, (given,), example_inputs=(given,), observer="min-max").module
    schema = tmp_path / "schema.py"
    schema.write_text(SCHEMA, encoding="utf-8")
    loaded = file.schema_module(schema)
    with pytest.raises(InputError, match="'conv2d' gives float32 of codes"):
        network_of(quantised)
    assert b"TFL3" in file.tflite(network_of(quantised, codes_for(quantised(given))), loaded)
    (model,) = loaded.packed
    (graph,) = model.subgraphs
    assert [code.builtinCode for code in model.operatorCodes] == [114, 3, 6]
    quantise, convolution, dequantise = graph.operators
    assert quantise.inputs == graph.inputs and dequantise.outputs == graph.outputs
    source, weight, bias = (graph.tensors[index] for index in convolution.inputs)
    assert convolution.inputs[0] == quantise.outputs[0] and dequantise.inputs == convolution.outputs
    assert (convolution.builtinOptions.padding, convolution.builtinOptions.fusedActivationFunction) == ("VALID", "RELU")
    assert (source.type, weight.type, bias.type) == ("INT8", "INT8", "INT32")
    assert (weight.shape, weight.quantization.zeroPoint, weight.quantization.quantizedDimension) == (
        [3, 1, 1, 2],
        [0] * 3,
        0,
    )
    assert len(model.buffers[weight.buffer].data) == 6 and len(model.buffers[bias.buffer].data) == 12
    assert source.buffer == 0 and not hasattr(model.buffers[0], "data")

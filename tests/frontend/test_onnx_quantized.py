"""ONNX files of quantised networks: integers where they were, and what ONNX Runtime makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn

from reconvene.driver.quantizing import quantize
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.program_file import export_onnx
from reconvene.frontend.quantized_operators import load_quantized_operators

IMAGES = torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(1))

load_quantized_operators()
OPERATORS = torch.ops.quantized_decomposed


class Network(nn.Module):
    """Convolutions with clamps and padding, pools, a residual sum, and products over two and three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.third, self.wide, self.last = nn.Conv2d(16, 16, 1), nn.Linear(16, 256), nn.Linear(256, 64)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.first(x).relu(), 2)
        x = torch.relu(x + self.third(nn.functional.relu6(self.second(x))))
        return self.last(self.wide(x.flatten(2).transpose(1, 2)).relu().mean(1))


@pytest.fixture(scope="module")
def quantized() -> fx.GraphModule:
    torch.manual_seed(0)
    return quantize(Network().eval(), IMAGES, observer="min-max").module


@pytest.fixture(scope="module")
def path(quantized: fx.GraphModule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("onnx") / "int8.onnx"
    export_onnx(quantized, (IMAGES,), made)
    return made


def ran(model: bytes, x: Tensor, *, optimised: bool, written: Path | None = None) -> list[Any]:
    """What ONNX Runtime gives. `written`: where it puts its own graph."""
    options, level = onnxruntime.SessionOptions(), onnxruntime.GraphOptimizationLevel
    options.log_severity_level = 3
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    # Otherwise its kernels cut sums off at 16 bits where a processor has no dot product of bytes.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if written is not None:
        options.optimized_model_filepath = str(written)
    found = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return list(found.run(None, {found.get_inputs()[0].name: x.numpy()}))


class Codes(fx.Interpreter):
    """Keeps what is rounded."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.codes: list[Tensor] = []

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        found = super().call_function(target, args, kwargs)
        if target is OPERATORS.quantize_per_tensor.default:
            self.codes.append(found)
        return found


def test_every_rounded_value_is_pytorchs_or_the_step_beside_it(quantized: fx.GraphModule, path: Path) -> None:
    model = onnx.load(path)
    rounded = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in rounded)
    logits, *found = ran(model.SerializeToString(), IMAGES, optimised=False)
    interpreter = Codes(quantized)
    expected = interpreter.run(IMAGES)
    assert len(found) == len(interpreter.codes) > 6
    for given, wanted in zip(found, interpreter.codes, strict=True):
        # ONNX divides by the scale where PyTorch multiplies by its inverse, so ties may fall either way.
        apart = np.abs(given.astype(int) - wanted.numpy().astype(int))
        assert given.dtype == np.int8 and apart.max() <= 1 and apart.mean() < 0.001
    assert np.abs(logits - expected.detach().numpy()).max() < 0.02 * expected.abs().max()


def test_onnx_runtime_computes_it_in_integers(quantized: fx.GraphModule, path: Path, tmp_path: Path) -> None:
    (found,) = ran(path.read_bytes(), IMAGES, optimised=True, written=tmp_path / "own.onnx")
    assert "QLinearConv" in {node.op_type for node in onnx.load(tmp_path / "own.onnx").graph.node}
    expected = quantized(IMAGES).detach().numpy()
    noise = 10 * np.log10(np.square(expected).sum() / np.square(found - expected).sum())
    assert noise > 40


def test_all_weights_are_bytes_with_a_scale_a_channel(quantized: fx.GraphModule, path: Path, tmp_path: Path) -> None:
    model = onnx.load(path)
    stored = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert sorted(node.op_type for node in layers) == ["Conv", "Conv", "Conv", "Gemm", "MatMul"]
    for layer in layers:
        maker = makers[layer.input[1]]
        assert maker.op_type == "DequantizeLinear"
        weight, scale = (stored[name] for name in maker.input[:2])
        (axis,) = (each.i for each in maker.attribute if each.name == "axis")
        assert weight.dtype == np.int8 and scale.shape == (weight.shape[axis],)
        # The third axis of products is that of results, behind one turn.
        assert axis == (1 if layer.op_type == "MatMul" else 0)
    assert not [each for each in stored.values() if each.dtype == np.float32 and each.ndim > 1]
    torch.manual_seed(0)
    export_onnx(capture(Network().eval(), (IMAGES,)), (IMAGES,), tmp_path / "float.onnx")
    assert path.stat().st_size < 0.5 * (tmp_path / "float.onnx").stat().st_size


def test_files_tell_nothing_of_the_code_they_were_captured_from(path: Path) -> None:
    assert b".py" not in path.read_bytes()


class Narrow(nn.Module):
    """Rounds to fewer steps than the type has."""

    def __init__(self, lowest: int, highest: int, zero_point: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.code = (0.05, zero_point, lowest, highest, dtype)

    def forward(self, x: Tensor) -> Tensor:
        codes = OPERATORS.quantize_per_tensor(x, *self.code)
        return OPERATORS.dequantize_per_tensor(codes, *self.code)


@pytest.mark.parametrize(
    "code",
    [(-64, 63, 3, torch.int8), (-127, 127, 0, torch.int8), (0, 127, 64, torch.uint8)],
    ids=lambda code: f"{code[0]}..{code[1]}",
)
def test_a_range_within_a_types_is_kept(code: Any, tmp_path: Path) -> None:
    x = torch.linspace(-20, 20, 801)[None]
    module = capture(Narrow(*code), (x,))
    export_onnx(module, (x,), tmp_path / "narrow.onnx")
    for optimised in (False, True):
        (found,) = ran((tmp_path / "narrow.onnx").read_bytes(), x, optimised=optimised)
        assert np.abs(found - module(x).numpy()).max() <= 0.0501
        assert found.min() == module(x).min() and found.max() == module(x).max()


def test_other_integers_are_refused_by_node(tmp_path: Path) -> None:
    x = torch.randn(1, 4)
    module = capture(Narrow(-32768, 32767, 0, torch.int16), (x,))
    with pytest.raises(InputError, match=r"'quantize_per_tensor\w*' is of int16, and ONNX quantises to int8 and uint8"):
        export_onnx(module, (x,), tmp_path / "wide.onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_that_is_to_be_trained_is_quantised_first(tmp_path: Path) -> None:
    trainable = quantize(nn.Sequential(nn.Linear(8, 4)), torch.randn(16, 8)).trainable()
    with pytest.raises(InputError, match="quantised for training"):
        export_onnx(trainable, (torch.randn(1, 8),), tmp_path / "trainable.onnx")

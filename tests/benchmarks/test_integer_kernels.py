"""The comparison of layers of codes with float32: which kernels it is made of, and what its table says."""

from __future__ import annotations

from integer_kernels import Layer, measure, specs, table

from reconvene.backends.kernels.integer_sparse import IntegerSparseSpec
from reconvene.backends.machines.targets import find_target
from tests.support.tools import needs

MACHINE = find_target("rpi4").machine


def test_kernels_that_compete() -> None:
    layer = Layer(3, 16, 8)
    families = {dtype: {spec.family for spec in specs(layer, MACHINE, dtype, 0.0)} for dtype in ("float32", "int8")}
    assert families == {"float32": {"convolution", "winograd"}, "int8": {"integer_convolution"}}
    assert any(isinstance(spec, IntegerSparseSpec) for spec in specs(layer, MACHINE, "int8", 0.8))
    (spec,) = specs(Layer(3, 16, 8, depthwise=True), MACHINE, "int8", 0.0)
    assert spec.family == "integer_depthwise"


@needs("qemu-aarch64", "aarch64-linux-gnu-g++", "llvm-mca")
def test_figures() -> None:
    (row,) = measure(find_target("rpi4"), [0.8], [Layer(1, 32, 8)])
    assert row["int8 direct"] > row["float32 direct"] > 1.0
    assert 1.0 < row["int8, 80% zeros"] < 5.0


def test_a_kind_that_a_layer_lacks_is_a_dash() -> None:
    rows = [{"target": "rpi4", "layer": "a", "int8 direct": 7.7}, {"target": "rpi4", "layer": "b", "x": 1.0}]
    assert table(rows).splitlines()[2:] == ["| rpi4 | a | 7.70 | - |", "| rpi4 | b | - | 1.00 |"]

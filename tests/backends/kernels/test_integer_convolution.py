"""Convolutions of codes give the bits of exact integers: here, on emulated ARM cores, and with instructions of other x86."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reconvene.backends.kernels.base import Task
from reconvene.backends.kernels.convolution import ConvolutionSpec
from reconvene.backends.kernels.families import candidates
from reconvene.backends.kernels.integer_convolution import IntegerConvolutionSpec, reading
from reconvene.backends.machines.targets import Target, find_target
from tests.support.emulated_instructions import run_replaced
from tests.support.integers import Case, Layer
from tests.support.kernel_programs import Arrays, run_emulated, run_here
from tests.support.tools import needs

LAYERS = [
    Layer(16, 16, 6, 6),
    Layer(20, 37, 9, 11, padding=1),
    Layer(20, 37, 9, 11, padding=1, stride=2, zero=5, low=5),
    Layer(3, 33, 13, 13, kernel=7, stride=2, padding=3),
    Layer(3, 8, 8, 8),
    Layer(100, 37, 7, 7, kernel=1),
    Layer(70, 50, 1, 1, kernel=1, result="float32"),
    Layer(70, 50, 1, 1, kernel=1, batch=3),
    Layer(16, 16, 9, 9, dilation=2, padding=2, high=20),
    Layer(32, 24, 5, 7, padding=1, batch=2, halo=1),
    Layer(18, 30, 6, 6, kernel=5, padding=2, result="residual"),
    Layer(24, 24, 6, 6, padding=1, groups=3),
    Layer(64, 16, 4, 4, padding=1, numbers="extreme"),
    Layer(12, 20, 9, 9, kernel=1, stride=2, result="sums"),
    Layer(24, 24, 6, 6, kernel=1, largest_scale=True),
    Layer(4, 4, 1, 1, kernel=1),
    Layer(8, 12, 5, 9, padding=1, tight=True),
    Layer(6, 500, 1, 1, kernel=1, numbers="ties"),
    Layer(20, 24, 11, 11, stride=3, low=-100, high=90, zero=17),
]
X86 = {
    "512 bits": ("znver4", 16, "vpdpbusd.512"),
    "256 bits of AVX-512": ("znver4", 8, "vpdpbusd.256"),
    "AVX-VNNI": ("alderlake", 8, "vpdpbusd.256"),
    "512 bits in pairs": ("skylake-avx512", 16, "pmaddw.d.512"),
    "256 bits in pairs": ("haswell", 8, "avx2.pmadd.wd"),
    "128 bits in pairs": ("x86-64", 4, "sse2.pmadd.wd"),
}
"""Processors, float32 elements of a vector, and the intrinsic that multiplies."""


def x86_target(cpu: str, lanes: int) -> Target:
    wide = cpu in ("znver4", "skylake-avx512")
    target = find_target("host")
    return replace(target, name=cpu, triple="x86_64-linux-gnu", cpu=cpu, lanes=lanes, registers=32 if wide else 16)


def cases_for(target: Target, step: int = 1) -> list[Case]:
    return [layer.case(target.machine, seed) for seed, layer in enumerate(LAYERS)][::step]


def wrong(cases: list[Case], results: list[Arrays]) -> dict[str, int]:
    """Of layers that are not exact, how many elements are not."""
    counts = {str(case.layer): case.wrong(arrays) for case, arrays in zip(cases, results, strict=True)}
    return {layer: count for layer, count in counts.items() if count}


def test_here() -> None:
    target = find_target("host")
    cases = cases_for(target)
    found = run_here([case.spec.function("kernel") for case in cases], [case.arguments for case in cases], target)
    assert wrong(cases, found) == {}


def test_without_instructions_for_it() -> None:
    """The direct kernel, which any machine has."""
    target = find_target("host")
    cases = [layer.case(replace(target.machine, dot=""), seed) for seed, layer in enumerate(LAYERS)]
    assert {type(case.spec) for case in cases} == {ConvolutionSpec}
    found = run_here([case.spec.function("kernel") for case in cases], [case.arguments for case in cases], target)
    assert wrong(cases, found) == {}


@pytest.mark.parametrize(
    ("board", "dot"),
    [
        pytest.param("rpi5", "sdot", marks=needs("qemu-aarch64", "aarch64-linux-gnu-g++")),
        pytest.param("rpi4", "sadalp", marks=needs("qemu-aarch64", "aarch64-linux-gnu-g++")),
        pytest.param("rpi2", "vpadal", marks=needs("qemu-arm", "arm-linux-gnueabihf-g++")),
    ],
)
def test_on_emulated_cores(board: str, dot: str, tmp_path: Path) -> None:
    target = find_target(board)
    cases = cases_for(target)
    assert {case.spec.dot for case in cases} == {dot}
    functions = [case.spec.function("kernel") for case in cases]
    assert wrong(cases, run_emulated(functions, [case.arguments for case in cases], target, tmp_path)) == {}


@needs("llc-22")
@pytest.mark.parametrize("name", list(X86))
def test_with_instructions_of_other_cores(name: str, tmp_path: Path) -> None:
    cpu, lanes, instruction = X86[name]
    target = x86_target(cpu, lanes)
    cases = cases_for(target, 1 if lanes == 16 and instruction.startswith("vp") else 3)
    names: set[str] = set()
    functions = [case.spec.function("kernel") for case in cases]
    assert wrong(cases, run_replaced(functions, [case.arguments for case in cases], target, tmp_path, names)) == {}
    assert any(instruction in replaced for replaced in names)


def test_ties_would_be_seen() -> None:
    """A product that is not rounded before it is rounded to a whole number falls to the other side of a half."""
    layer = next(layer for layer in LAYERS if layer.numbers == "ties")
    case = layer.case(find_target("host").machine)
    bias, scales = (case.arguments[place][: layer.outputs] for place in (2, 3))
    weights = 6 * (layer.zero + (128 if find_target("host").machine.codes == "uint8" else 0))
    exact = np.rint((bias + weights).astype("float64") * scales.astype("float64")) + layer.zero
    moved = case.expected[0, :, 0, 0].astype("int64") - (128 if case.expected.dtype == "uint8" else 0)
    assert (exact != moved).mean() > 0.1


def test_every_candidate_is_exact() -> None:
    target = find_target("host")
    for layer in (LAYERS[1], LAYERS[5]):
        case = layer.case(target.machine)
        specs = candidates(Task(case.spec), target.machine)
        assert len(specs) > 3 and all(isinstance(spec, IntegerConvolutionSpec) for spec in specs)
        assert len({spec.tile for spec in specs}) == len(specs)
        given = [[case.arguments[0], *_packed(layer, spec), *case.arguments[3:]] for spec in specs]
        found = run_here([spec.function("kernel") for spec in specs], given, target)
        assert [case.wrong(arrays) for arrays in found] == [0] * len(specs)


def _packed(layer: Layer, spec: IntegerConvolutionSpec) -> Arrays:
    """Weights and bias as a tile of another shape has them."""
    return layer.case(find_target("host").machine, spec=spec).arguments[1:3]


def test_pixels_are_read_four_at_a_time_where_that_stays_in_the_buffer() -> None:
    machine = find_target("rpi5").machine
    reads = {
        layer: reading(layer.case(machine).spec)
        for layer in (Layer(8, 12, 5, 9, padding=1), Layer(70, 50, 1, 1, kernel=1))
    }
    assert list(reads.values()) == ["neighbours", "channels"]
    assert reading(Layer(8, 12, 5, 9, padding=1, tight=True).case(machine).spec) == "spread"

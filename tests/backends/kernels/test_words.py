"""Layers of codes on cores whose registers hold a word give the bits of exact integers, two products at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm

from reconvene.backends.kernels.convolution import ConvolutionSpec
from reconvene.backends.kernels.depthwise import DepthwiseSpec
from reconvene.backends.kernels.image import View
from reconvene.backends.kernels.paired_convolution import PairedConvolutionSpec
from reconvene.backends.kernels.paired_depthwise import PairedDepthwiseSpec
from reconvene.backends.lowering.layout import Image, channels_last_view, flattened
from reconvene.backends.machines.targets import Target, find_target
from tests.backends.kernels import test_integer_convolution, test_integer_depthwise
from tests.backends.kernels.test_integer_depthwise import depthwise
from tests.support.integers import Case, Layer
from tests.support.kernel_programs import module_of, run_emulated
from tests.support.tools import needs

LAYERS = [
    *test_integer_convolution.LAYERS,
    Layer(1, 8, 11, 9, kernel=4, stride=2, padding=1),
    Layer(2, 5, 7, 8, padding=1, halo=1),
    Layer(5, 3, 1, 7, kernel=1),
    Layer(9, 1, 6, 5, halo=1),
    Layer(1, 4, 5, 6, padding=1, tight=True),
]
DEPTHWISE = [
    *test_integer_depthwise.LAYERS,
    test_integer_depthwise.APART,
    depthwise(5, 3, 3),
    depthwise(3, 6, 7, padding=1, numbers="ties"),
]


def linux() -> Target:
    """A core for systems without its vectors: the same instructions, and programs that run here."""
    return replace(find_target("rpi2"), lanes=1)


def has_pairs(layer: Layer) -> bool:
    """Whether a layer's products may be of pairs."""
    if layer.groups == 1:
        return not layer.tight or layer.inputs % 4 == 0
    return layer.groups == layer.inputs and layer.kernel <= 3 and layer.dilation == 1


@needs("qemu-arm", "arm-linux-gnueabihf-g++")
def test_bits(tmp_path: Path) -> None:
    target = linux()
    cases = [layer.case(target.machine, seed) for seed, layer in enumerate([*LAYERS, *DEPTHWISE])]
    for case in cases:
        kinds = (
            (PairedConvolutionSpec, PairedDepthwiseSpec) if has_pairs(case.layer) else (ConvolutionSpec, DepthwiseSpec)
        )
        assert type(case.spec) in kinds
    functions = [case.spec.function("k") for case in cases]
    found = run_emulated(functions, [case.arguments for case in cases], target, tmp_path)
    assert {
        str(case.layer): wrong for case, arrays in zip(cases, found, strict=True) if (wrong := case.wrong(arrays))
    } == {}


@pytest.mark.parametrize(
    ("cpu", "triple", "features", "dot"),
    [
        ("cortex-m4", "thumbv7em-none-eabihf", (), "smlad"),
        ("cortex-m7", "thumbv7em-none-eabihf", (), "smlad"),
        ("cortex-m33", "thumbv7em-none-eabihf", (), "smlad"),
        ("cortex-m3", "thumbv7m-none-eabi", (), ""),
        ("cortex-m0", "thumbv6m-none-eabi", (), ""),
        ("cortex-m4", "thumbv7em-none-eabi", ("-fpregs",), ""),
        ("cortex-m33", "thumbv7em-none-eabihf", ("-dsp",), ""),
    ],
)
def test_cores_that_lack_an_instruction_do_without(cpu: str, triple: str, features: tuple[str, ...], dot: str) -> None:
    abi = "hard" if triple.endswith("hf") else "soft"
    target = replace(find_target("cortex-m4"), cpu=cpu, triple=triple, features=features, float_abi=abi)
    assert target.machine.dot == dot
    case = Layer(8, 4, 3, 3).case(target.machine)
    assert isinstance(case.spec, PairedConvolutionSpec) == bool(dot)
    # LLVM ends the process where it has no such instruction.
    assembly = assembly_of(case, target)
    assert ("smlad" in assembly) == ("vcvtr.s32.f32" in assembly) == bool(dot)


def assembly_of(case: Case, target: Target) -> str:
    built = tvm.tirx.build(module_of([case.spec.function("k")]), target=tvm.target.Target(target.llvm()))
    return str(built.inspect_source("asm"))


def test_channels_side_by_side() -> None:
    view = channels_last_view(2, 5, 3, 4, 1, "int8")
    assert (view.column, view.row, view.image, view.start, view.size) == (8, 48, 240, 56, 484)
    assert channels_last_view(1, 2, 3, 4, 0, "int8").column == 2  # Words would be half empty.
    flat = flattened(Image(np.zeros(1), view, np.arange(5)))
    places = [view.offset(0, channel, y, x) for channel in range(5) for y in range(3) for x in range(4)]
    assert [flat.view.offset(0, int(slot), 0, 0) for slot in flat.slots] == places
    assert max(flat.slots) < flat.view.blocks <= view.image


def test_pixels_in_a_row_are_a_view_of_the_same() -> None:
    spec = Layer(8, 4, 4, 5, kernel=1).case(linux().machine).spec
    assert isinstance(spec.source, View) and (spec.source.height, spec.source.width, spec.source.column) == (1, 20, 8)
    assert (spec.words, spec.tile.blocks, spec.tile.pixels) == (2, 2, 2)
    assert spec.weight_bytes == 4 * 8  # As many bytes as there are weights.

"""Kernels whose vectors run along output channels, against PyTorch in float64: all groupings, on all kinds of machines."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from reconvene.backends.graph.nodes import Convolution, Node, Weights
from reconvene.backends.kernels.base import Task, trial_of
from reconvene.backends.kernels.dots import DotsSpec
from reconvene.backends.kernels.epilogue import Epilogue, Operand, Step
from reconvene.backends.kernels.families import candidates
from reconvene.backends.kernels.image import View
from reconvene.backends.kernels.packed_rows import Blocking
from reconvene.backends.kernels.row_zeros import RowZeros, zeros_in_rows
from reconvene.backends.kernels.rows import RowsSpec
from reconvene.backends.kernels.rows_family import RowsFamily
from reconvene.backends.kernels.tiles import Machine
from reconvene.backends.kernels.zeros import count_groups, entries_of
from reconvene.backends.lowering.layers import convolution_spec
from reconvene.backends.lowering.layout import Image, dense_view
from tests.backends.kernels.test_packed_rows import matrices

MACHINES = {
    "sixteen lanes": Machine(64, 32, 2**20, cores=2),
    "four lanes, by lane": Machine(16, 32, 2**19, cores=4, pixel_registers=1, by_lane=True),
    "one lane": Machine(4, 16, 2**16),
}


@dataclass(frozen=True)
class Case:
    """A layer; `shared` neighbouring outputs have zeros at the same places, in `blocks` of columns other ones."""

    inputs: int
    outputs: int
    size: tuple[int, int] = (1, 1)
    window: int = 1
    stride: int = 1
    dilation: int = 1
    batch: int = 1
    zeros: float = 0.7
    shared: int = 1
    blocks: int = 1
    halo: int = 0

    def convolution(self) -> Convolution:
        random = np.random.default_rng(0)
        shape = (self.outputs, self.inputs * self.window**2)
        kept = []
        for columns in np.array_split(np.arange(shape[1]), self.blocks):
            mask = np.repeat(
                random.random((-(-self.outputs // self.shared), len(columns))) >= self.zeros, self.shared, 0
            )
            order = random.permutation(self.outputs) if self.blocks > 1 else np.arange(self.outputs)
            kept.append(mask[: self.outputs][order])
        kernel = random.standard_normal(shape) * np.concatenate(kept, axis=1)
        return self.of(kernel)

    def of(self, matrix: np.ndarray) -> Convolution:
        kernel = matrix.reshape(self.outputs, self.inputs, self.window, self.window)
        p = (self.window - 1) * self.dilation // 2
        bias = np.random.default_rng(3).standard_normal(self.outputs)
        return Convolution(
            Weights(kernel, bias), (self.stride, self.stride), (p, p, p, p), (self.dilation, self.dilation)
        )

    def image(self) -> np.ndarray:
        return np.random.default_rng(1).standard_normal((self.batch, self.inputs, *self.size)).astype("float32")

    @property
    def area(self) -> tuple[int, int]:
        """Of the result."""
        return (self.size[0] - 1) // self.stride + 1, (self.size[1] - 1) // self.stride + 1

    def expected(self, layer: Convolution) -> np.ndarray:
        tensors = [
            torch.from_numpy(a) for a in (self.image().astype("float64"), layer.weights.kernel, layer.weights.bias)
        ]
        return F.conv2d(*tensors, self.stride, layer.padding[0], self.dilation).numpy()  # type: ignore[no-any-return]


CASES = {
    "a matrix": Case(40, 48, shared=16, zeros=0.8),
    "zeros anywhere": Case(13, 21),
    "rows that are left over": Case(70, 37, shared=8),
    "rows in another order": Case(64, 40, shared=5, zeros=0.6),
    "other rows in every block": Case(128, 48, shared=4, blocks=4),
    "a batch": Case(24, 20, batch=3, shared=4),
    "pointwise": Case(24, 33, (4, 5), shared=16),
    "pointwise, few pixels": Case(24, 20, (2, 3), blocks=2, shared=4),
    "3x3": Case(6, 16, (6, 7), window=3, shared=16, halo=1),
    "3x3, strided, several images": Case(5, 10, (9, 8), window=3, stride=2, batch=2, shared=16),
    "dilated": Case(5, 18, (5, 7), window=3, dilation=2, shared=16),
    "no weight at all": Case(8, 9, zeros=1.0),
    "hardly any": Case(50, 40, zeros=0.99),
}


def buffer_of(image: np.ndarray, view: View, slots: np.ndarray) -> np.ndarray:
    """``(N, C, H, W)`` in blocks: zeros in the border, and where nobody may look, NaN."""
    buffer = np.full(view.size, np.nan, "float32")
    halo = range(-view.halo, 0)
    for n in range(view.batch):
        for c, slot in enumerate(slots):
            for y in [*halo, *range(view.height), *(view.height + view.halo + h for h in halo)]:
                for x in [*halo, *range(view.width), *(view.width + view.halo + h for h in halo)]:
                    inside = 0 <= y < view.height and 0 <= x < view.width
                    at = view.offset(n, slot // view.lanes, y, x) + slot % view.lanes
                    buffer[at] = image[n, c, y, x] if inside else 0
    return buffer


def read_back(buffer: np.ndarray, view: View, channels: int) -> np.ndarray:
    """What a kernel wrote as ``(N, C, H, W)``; a border has to be zeros."""
    n, c, y, x = np.ix_(*(np.arange(extent) for extent in (view.batch, channels, view.height, view.width)))
    found = buffer[view.offset(n, c // view.lanes, y, x) + c % view.lanes]
    if view.halo:
        y, x = np.ix_(*(np.arange(-view.halo, extent + view.halo) for extent in (view.height, view.width)))
        edge = (y < 0) | (y >= view.height) | (x < 0) | (x >= view.width)
        assert not buffer[view.offset(0, 0, y, x)][edge].any()
    return found  # type: ignore[no-any-return]


class Laid:
    """A layer on a machine, its channels in `slots` of which some are left free."""

    def __init__(self, case: Case, layer: Convolution, machine: Machine, epilogue: Epilogue = Epilogue()) -> None:  # noqa: B008
        lanes = machine.lanes()
        self.case, self.layer, self.machine = case, layer, machine
        self.slots = np.random.default_rng(4).permutation(case.inputs + 3)[: case.inputs]
        blocks = -(-(case.inputs + 3) // lanes)
        self.source = dense_view(case.batch, blocks, *case.size, lanes, layer.padding[0])
        self.result = dense_view(case.batch, -(-case.outputs // lanes), *case.area, lanes, case.halo)
        spec = convolution_spec(
            layer, Image(Node("input", [], ()), self.source, self.slots), self.result, epilogue, machine
        )
        self.task = Task(spec, zeros_in_rows(layer, lanes))

    def specs(self) -> list[RowsSpec | DotsSpec]:
        """The candidates of every grouping by itself, also in chunks that cut rows which share columns."""
        zeros, entries, lanes = self.task.sparsity, entries_of(self.layer), self.machine.lanes()
        assert isinstance(zeros, RowZeros)
        cut = count_groups(entries, Blocking(lanes * 2, max(1, entries.columns // 3)))
        whole = count_groups(entries, Blocking(lanes * 2, entries.columns))
        found = list(RowsFamily().candidates(replace(self.task, sparsity=replace(zeros, counts=())), self.machine))
        for count in dict.fromkeys((*zeros.counts, whole, cut)):
            found += RowsFamily().candidates(replace(self.task, sparsity=replace(zeros, counts=(count,))), self.machine)
        return list(dict.fromkeys(found))

    def results(self, specs: list[RowsSpec | DotsSpec], *leaves: np.ndarray) -> list[np.ndarray]:
        """What kernels compute, from buffers with NaN wherever nothing was written."""
        functions = {f"kernel{i}": spec.function(f"kernel{i}") for i, spec in enumerate(specs)}
        named = {name: function.with_attr("global_symbol", name) for name, function in functions.items()}
        library = tvm.compile(tvm.IRModule(named), target={"kind": "llvm", "opt-level": 1})
        found = []
        for spec, (name, function) in zip(specs, functions.items(), strict=True):
            shapes = [(tuple(int(extent) for extent in p.shape), str(p.dtype)) for p in function.params]
            packed = spec.pack(self.layer, self.slots)
            assert [(array.shape, str(array.dtype)) for array in packed] == shapes[1 : 1 + len(packed)]
            first = [buffer_of(self.case.image(), self.source, self.slots), *packed, *leaves]
            rest = [np.full(shape, np.nan, dtype) for shape, dtype in shapes[len(first) :]]
            assert [shape for shape, _ in shapes[len(first) + 1 :]] == [(size,) for size in spec.workspace]
            tensors = [tvm.runtime.tensor(array) for array in (*first, *rest)]
            library[name](*tensors)
            found.append(read_back(tensors[len(first)].numpy(), self.result, self.case.outputs))
        return found


def families(machine: str) -> set[str]:
    """One output after the other is the same as groups of one, where a vector is one element."""
    return {"rows"} if machine == "one lane" else {"rows", "dots"}


def check(found: list[np.ndarray], expected: np.ndarray, specs: list[RowsSpec | DotsSpec]) -> None:
    for spec, result in zip(specs, found, strict=True):
        np.testing.assert_allclose(
            result, expected, rtol=0, atol=1e-5 * np.abs(expected).max() + 1e-6, err_msg=str(spec)
        )


@pytest.mark.parametrize("machine", list(MACHINES))
@pytest.mark.parametrize("name", list(CASES))
def test_every_candidate_computes_the_layer(name: str, machine: str) -> None:
    case = CASES[name]
    laid = Laid(case, case.convolution(), MACHINES[machine])
    specs = laid.specs()
    assert {spec.family for spec in specs} == families(machine) and all(
        spec.cycles(MACHINES[machine]) > 0 for spec in specs
    )
    check(laid.results(specs), case.expected(laid.layer), specs)


@given(matrices(), st.sampled_from(list(MACHINES)), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_any_matrix(matrix: np.ndarray, machine: str, pixels: int) -> None:
    case = Case(matrix.shape[1], matrix.shape[0], (1, pixels))
    layer = case.of(matrix)
    if zeros_in_rows(layer, MACHINES[machine].lanes()) is None:
        assert np.count_nonzero(matrix) > 0.8 * matrix.size
        return
    laid = Laid(case, layer, MACHINES[machine])
    specs = laid.specs()
    check(laid.results(specs), case.expected(layer), specs)


@pytest.mark.parametrize("machine", list(MACHINES))
def test_epilogues_read_images_and_numbers_that_are_the_same_for_all_pixels(machine: str) -> None:
    case, lanes = CASES["pointwise, few pixels"], MACHINES[machine].lanes()
    steps = (
        Step("add", (), (Operand("anchor"), Operand("leaf", 0))),
        Step("multiply", (), (Operand("step", 0), Operand("leaf", 1))),
        Step("relu", (), (Operand("step", 1),)),
    )
    blocks = -(-case.outputs // lanes)
    result = dense_view(1, blocks, *case.area, lanes, 0)
    gate = replace(dense_view(1, blocks, 1, 1, lanes, 0), image=0, row=0, column=0)
    laid = Laid(case, case.convolution(), MACHINES[machine], Epilogue(steps, (result, gate)))
    random = np.random.default_rng(2)
    other = random.standard_normal((1, case.outputs, *case.area)).astype("float32")
    factors = random.standard_normal(blocks * lanes).astype("float32")
    expected = np.maximum((case.expected(laid.layer) + other) * factors[: case.outputs, None, None], 0)
    specs = laid.specs()
    assert {spec.family for spec in specs} == families(machine)
    check(laid.results(specs, buffer_of(other, result, np.arange(case.outputs)), factors), expected, specs)


def test_rows_are_computed_together_if_they_share_columns() -> None:
    def counts(case: Case) -> set[tuple[int, bool, bool]]:
        zeros = zeros_in_rows(case.convolution(), 4)
        assert zeros is not None
        return {(c.blocking.height, c.blocking.in_order, c.chunks > 1) for c in zeros.counts}

    assert counts(Case(64, 64, shared=16, zeros=0.8)) >= {(4, True, False), (8, True, False), (16, True, False)}
    assert counts(Case(64, 64, shared=1, zeros=0.5)) == set(), "all of them need all columns"
    shuffled = Case(64, 64, shared=8, zeros=0.8)
    layer = shuffled.convolution()
    layer.weights.kernel = layer.weights.kernel[np.random.default_rng(0).permutation(64)]
    zeros = zeros_in_rows(layer, 4)
    assert zeros is not None and Blocking(8, 64) in {count.blocking for count in zeros.counts}
    assert (4, False, True) in counts(Case(128, 64, shared=8, blocks=4, zeros=0.8))


def test_few_zeros_are_left_to_the_kernel_of_all_weights() -> None:
    case, machine = Case(64, 64, zeros=0.1), MACHINES["four lanes, by lane"]
    laid = Laid(case, case.convolution(), machine)
    assert laid.task.sparsity is None and RowsFamily().candidates(laid.task, machine) == ()
    sparse = Laid(replace(case, zeros=0.9), replace(case, zeros=0.9).convolution(), machine)
    families = [spec.family for spec in candidates(sparse.task, machine)]
    assert families[0] == "convolution" and {"rows", "dots"} & set(families)


def test_weights_are_stored_once_and_zeros_are_not() -> None:
    """A tenth of the weights is hardly more than a tenth of the bytes."""
    case = Case(256, 256, zeros=0.9, shared=16)
    laid = Laid(case, case.convolution(), MACHINES["four lanes, by lane"])
    best = RowsFamily().candidates(laid.task, MACHINES["four lanes, by lane"])[0]
    packed = sum(array.nbytes for array in best.pack(laid.layer, laid.slots))
    assert best.weight_bytes <= packed <= 0.15 * 4 * 256 * 256


@pytest.mark.parametrize("name", ["a matrix", "other rows in every block", "zeros anywhere"])
def test_tables_that_are_timed_are_like_those_of_a_layer(name: str) -> None:
    case = CASES[name]
    laid = Laid(case, case.convolution(), MACHINES["sixteen lanes"])
    for spec in laid.specs():
        packed, typical = spec.pack(laid.layer, laid.slots), trial_of(spec).tables
        assert typical.keys() == set(range(3, 1 + len(packed)))
        for place, table in typical.items():
            real = packed[place - 1]
            assert table.shape == real.shape and table.dtype == real.dtype
            assert table.min() >= 0 and table.max() <= max(spec.source.size, case.outputs, len(packed[-1]))


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_cores_share_the_weights(cores: int) -> None:
    case = Case(64, 96, shared=4, zeros=0.8, blocks=2)
    machine = replace(MACHINES["four lanes, by lane"], cores=cores)
    laid = Laid(case, case.convolution(), machine)
    for spec in laid.specs():
        assert spec.parts == cores
        spans = spec.pack(laid.layer, laid.slots)[-2]
        assert len(spans) == cores + 1 and spans[0] == 0 and (np.diff(spans) > 0).all()
    specs = laid.specs()
    check(laid.results(specs), case.expected(laid.layer), specs)

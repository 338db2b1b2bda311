"""Kernels that gather what few weights need, against PyTorch in float64: all ways to cut the work, on all kinds of machines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tvm

from reconvene.backends.kernels.base import Task
from reconvene.backends.kernels.convolution import ConvolutionSpec
from reconvene.backends.kernels.epilogue import Epilogue, Operand, Step
from reconvene.backends.kernels.families import candidates
from reconvene.backends.kernels.gather import GatherSpec
from reconvene.backends.kernels.gather_family import GatherFamily
from reconvene.backends.kernels.packed_rows import Blocking
from reconvene.backends.kernels.planes import plane_view
from reconvene.backends.kernels.tiles import Machine
from reconvene.backends.kernels.zeros import zeros_in_planes
from reconvene.backends.lowering.layout import dense_view
from tests.support.planes import PlanesLayer, laid_out, read_back, results

MACHINES = {
    "sixteen lanes": Machine(64, 32, 2**20, cores=2),
    "four lanes, by lane": Machine(16, 32, 2**19, cores=4, pixel_registers=1, by_lane=True),
    "one lane": Machine(4, 16, 2**16),
}


CASES = {
    "3x3": PlanesLayer(6, 12, (9, 9)),
    "zeros anywhere": PlanesLayer(8, 10, (7, 7), shared=1),
    "rows that are left over, several images": PlanesLayer(5, 7, (14, 13), batch=2),
    "pointwise, wide": PlanesLayer(16, 9, (20, 33), window=1),
    "one long row": PlanesLayer(3, 5, (1, 40), window=1, zeros=0.5),
    "stride 2": PlanesLayer(6, 10, (14, 14), stride=2),
    "stride 2, odd, several images": PlanesLayer(6, 6, (15, 11), stride=2, batch=2, groups=2),
    "stride 2, pointwise": PlanesLayer(4, 6, (10, 10), window=1, stride=2),
    "stride 3": PlanesLayer(4, 6, (13, 10), stride=3),
    "first layer": PlanesLayer(3, 8, (21, 21), window=7, stride=2, zeros=0.0),
    "depthwise": PlanesLayer(6, 6, (9, 9), groups=6, zeros=0.0),
    "dilated, in groups": PlanesLayer(8, 12, (12, 12), dilation=2, groups=2),
    "5x5": PlanesLayer(4, 8, (11, 12), window=5),
    "other rows in every block": PlanesLayer(24, 24, (9, 10), zeros=0.6, blocks=3),
    "no weight at all": PlanesLayer(4, 4, (5, 5), zeros=1.0),
}


def in_chunks(case: PlanesLayer, spec: GatherSpec, parts: int) -> GatherSpec:
    """The same in about so many chunks, which cut rows that share columns, so that sums wait."""
    width = max(1, case.inputs * case.window**2 // parts)
    counted = zeros_in_planes(case.convolution(), [Blocking(2, width)]).counts[-1]
    return replace(spec, count=counted, vectors=min(spec.vectors, 3), channels_first=False, parts=1)


@pytest.mark.parametrize("machine", list(MACHINES))
@pytest.mark.parametrize("name", list(CASES))
def test_every_candidate_computes_the_layer(name: str, machine: str) -> None:
    case = CASES[name]
    halo = 0 if name == "pointwise, wide" else 1
    specs = list(GatherFamily().candidates(case.task(halo), MACHINES[machine]))
    assert specs and all(spec.cycles(MACHINES[machine]) > 0 for spec in specs)
    other = [spec for spec in specs if spec.channels_first and name in ("3x3", "pointwise, wide", "first layer")]
    chunked = [in_chunks(case, specs[0], 2 if "image" in name else 3)] if case.groups == 1 else []
    specs = [specs[0], *other[:1], *chunked]
    expected = case.expected()
    for spec, found in zip(specs, results(specs, case), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=str(spec))


def test_channels_are_computed_together_if_they_share_columns() -> None:
    layers = {share: PlanesLayer(16, 16, (8, 8), shared=share).convolution() for share in (1, 4, 8)}
    layers = {share: PlanesLayer(16, 16, (8, 8), shared=share).convolution() for share in (1, 4, 8)}
    heights = {share: {c.blocking.height for c in zeros_in_planes(layer).counts} for share, layer in layers.items()}
    assert heights == {1: {1, 2}, 4: {4}, 8: {4, 8}}


def test_blocks_of_a_matrix_become_chunks() -> None:
    """Of blocks of 8 channels, in which other filters share columns, the widest chunks that cut none."""
    case = PlanesLayer(32, 32, (8, 8), zeros=0.6, blocks=4)
    counts = zeros_in_planes(case.convolution()).counts
    whole = next(count for count in counts if count.chunks == 1 and count.blocking.height == 1)
    cut = [count for count in counts if count.chunks > 1]
    assert cut and cut[0].blocking == Blocking(4, 72) and cut[0].entries * 4 <= 1.05 * whole.entries


def test_rows_that_share_nothing_read_what_fits_the_first_cache() -> None:
    """Each row reads its places anew, of as many channels as stay there; with a larger cache, of all at once."""
    case = PlanesLayer(64, 8, (24, 24), shared=1)
    machine = MACHINES["sixteen lanes"]
    near, wide = (
        GatherFamily().candidates(case.task(), replace(machine, l1_bytes=size))[0] for size in (20_000, 2**20)
    )
    assert near.count.chunks > wide.count.chunks == near.height == 1
    expected = case.expected()
    np.testing.assert_allclose(results([near], case)[0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_tables_that_are_timed_are_like_those_of_a_layer() -> None:
    case = CASES["3x3"]
    spec = GatherFamily().candidates(case.task(), MACHINES["sixteen lanes"])[0]
    packed, typical = spec.pack(case.convolution(), np.arange(case.inputs)), spec.typical()
    for place, table in typical.items():
        real = packed[place - 1]
        assert table.shape == real.shape and table.dtype == real.dtype
        assert table.min() >= 0 and table.max() <= max(real.max(), spec.source.size - 3 * 64, spec.count.entries)
    assert (np.diff(typical[4]) > 0).all() and typical[4][-1] == spec.count.entries


def test_epilogues_read_planes_and_numbers_that_are_the_same_for_a_plane() -> None:
    case = CASES["3x3"]
    plain = case.task()
    gate = replace(dense_view(1, case.outputs, 1, 1, 1, 0), image=0, row=0, column=0)
    steps = (
        Step("add", (), (Operand("anchor"), Operand("leaf", 0))),
        Step("multiply", (), (Operand("step", 0), Operand("leaf", 1))),
        Step("relu", (), (Operand("step", 1),)),
    )
    result = plain.spec.result
    spec = GatherFamily().candidates(case.task(1, Epilogue(steps, (result, gate))), MACHINES["sixteen lanes"])[0]
    random = np.random.default_rng(2)
    other = random.standard_normal((1, case.outputs, *case.size)).astype("float32")
    factors = random.standard_normal(case.outputs).astype("float32")
    function = spec.function("kernel").with_attr("global_symbol", "kernel")
    given = [laid_out(case.image(), spec.source), *spec.pack(case.convolution(), np.arange(case.inputs)),
             laid_out(other, result), factors, np.full(result.size, np.nan, "float32")]  # fmt: skip
    tensors = [tvm.runtime.tensor(array) for array in given]
    tvm.compile(tvm.IRModule({"kernel": function}), target="llvm")["kernel"](*tensors)
    expected = np.maximum((case.expected() + other) * factors[:, None, None], 0)
    found = read_back(tensors[-1].numpy(), result, case.outputs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_layers_in_blocks_are_left_to_others() -> None:
    """And where a vector is one element, blocks are planes."""
    case, machine = CASES["3x3"], MACHINES["sixteen lanes"]
    task = case.task()
    assert {spec.family for spec in candidates(task, machine)} == {"gather"}
    assert {"convolution", "gather"} <= {spec.family for spec in candidates(task, MACHINES["one lane"])}
    blocks = dense_view(1, 1, *case.size, 16, 1)
    assert (
        GatherFamily().candidates(replace(task, spec=replace(task.spec, source=blocks, result=blocks)), machine) == ()
    )
    assert GatherFamily().candidates(Task(task.spec), machine) == (), "nothing is known of its zeros"


def test_what_cannot_be_read_as_neighbours_is_copied() -> None:
    machine = MACHINES["sixteen lanes"]

    def staged(task: Task) -> bool:
        return GatherFamily().candidates(task, machine)[0].staging is not None

    plain, strided = CASES["3x3"].task(), CASES["stride 2"].task()
    assert not staged(plain) and staged(strided)
    wider = replace(plain.spec.result, row=plain.spec.result.row + 2)
    assert staged(replace(plain, spec=replace(plain.spec, result=wider)))
    # Rows of the result that are too near for a phase of the source.
    close = plane_view(1, 10, 7, 7, 0, 7)
    assert GatherFamily().candidates(replace(strided, spec=replace(strided.spec, result=close)), machine) == ()
    assert isinstance(plain.spec, ConvolutionSpec)

"""Convolutions in planes whose filters read one channel each, against PyTorch in float64, on all kinds of machines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reconvene.backends.kernels.base import Task
from reconvene.backends.kernels.families import candidates
from reconvene.backends.kernels.plane_depthwise import PlaneDepthwiseFamily
from reconvene.backends.kernels.planes import plane_view
from reconvene.backends.kernels.tiles import Machine
from reconvene.backends.lowering.layout import dense_view
from tests.support.planes import PlanesLayer, results

MACHINES = {
    "eight lanes": Machine(32, 16, 2**19, cores=2, rate=2.0),
    "four lanes, by lane": Machine(16, 32, 2**19, cores=4, pixel_registers=1, by_lane=True),
    "one lane": Machine(4, 16, 2**16),
}
CASES = {
    "3x3": PlanesLayer(6, 6, (9, 9), groups=6, zeros=0.0),
    "wide, several images": PlanesLayer(3, 3, (7, 33), groups=3, zeros=0.0, batch=2),
    "5x5": PlanesLayer(4, 4, (11, 12), window=5, groups=4, zeros=0.0),
    "stride 2": PlanesLayer(6, 6, (14, 14), stride=2, groups=6, zeros=0.0),
    "stride 2, odd, several images": PlanesLayer(5, 5, (15, 11), stride=2, groups=5, zeros=0.0, batch=2),
    "dilated": PlanesLayer(4, 4, (12, 12), dilation=2, groups=4, zeros=0.0),
    "two filters a channel": PlanesLayer(4, 8, (10, 9), groups=4, zeros=0.0),
    "one channel for all": PlanesLayer(1, 6, (10, 9), zeros=0.0),
    "zeros": PlanesLayer(6, 6, (9, 9), groups=6, zeros=0.5, shared=1),
}


@pytest.mark.parametrize("machine", list(MACHINES))
@pytest.mark.parametrize("name", list(CASES))
def test_every_candidate_computes_the_layer(name: str, machine: str) -> None:
    case = CASES[name]
    specs = PlaneDepthwiseFamily().candidates(case.task(), MACHINES[machine])
    assert specs and all(spec.cycles(MACHINES[machine]) > 0 for spec in specs)
    specs = (specs[0], replace(specs[0], vectors=2 if specs[0].vectors == 1 else 1))
    expected = case.expected()
    for spec, found in zip(specs, results(specs, case), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=str(spec))


def test_channels_may_lie_anywhere() -> None:
    """Filters read the planes in which their channels are, of an image with more of them."""
    case, machine = CASES["3x3"], MACHINES["eight lanes"]
    task = case.task()
    spec = PlaneDepthwiseFamily().candidates(replace(task, spec=replace(task.spec)), machine)[0]
    slots = np.array([5, 3, 1, 0, 2, 4])
    places = spec.pack(case.convolution(), slots)[2]
    own = spec.pack(case.convolution(), np.arange(6))[2]
    np.testing.assert_array_equal(places, own[slots])


def test_it_costs_less_than_lists_of_places() -> None:
    """By the estimate, which decides where nothing is timed."""
    machine = MACHINES["eight lanes"]
    found = candidates(CASES["3x3"].task(), machine)
    cycles = {spec.family: spec.cycles(machine) for spec in reversed(found)}
    assert cycles["plane_depthwise"] < cycles["gather"]


def test_other_layers_are_left_to_others() -> None:
    family, machine, case = PlaneDepthwiseFamily(), MACHINES["eight lanes"], CASES["3x3"]
    assert family.candidates(PlanesLayer(6, 12, (9, 9)).task(), machine) == ()
    task = case.task()
    blocks = dense_view(1, 1, *case.size, 8, 1)
    assert family.candidates(replace(task, spec=replace(task.spec, source=blocks, result=blocks)), machine) == ()
    assert family.candidates(Task(task.spec), machine) == (), "nothing is known of its filters"
    strided = CASES["stride 2"].task()
    close = plane_view(1, 6, 7, 7, 0, 7)
    assert family.candidates(replace(strided, spec=replace(strided.spec, result=close)), machine) == ()

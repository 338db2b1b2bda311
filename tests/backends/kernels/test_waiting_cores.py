"""Cores that wait for loads, and cores that begin few instructions beside two products: formulas of kernels that skip zeros are
near what the models of such cores have for their code.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from tvm import IRModule

from reconvene.backends.estimate.kernel import estimate_kernel
from reconvene.backends.kernels.base import Spec, trial_of
from reconvene.backends.kernels.gather_family import GatherFamily
from reconvene.backends.kernels.plane_depthwise import PlaneDepthwiseFamily
from reconvene.backends.kernels.rows_family import RowsFamily
from reconvene.backends.machines.targets import Target, find_target
from tests.backends.kernels.test_rows import Case, Laid
from tests.support.planes import PlanesLayer
from tests.support.tools import needs

BOARD, DOUBLED = find_target("rpi3"), find_target("rpi5")
ROWS = Laid(Case(96, 64, (14, 14), shared=4, zeros=0.8), Case(96, 64, shared=4, zeros=0.8).convolution(), BOARD.machine)
TASKS = {
    "channels together": (GatherFamily(), PlanesLayer(96, 64, (14, 14), window=1, shared=4, zeros=0.8).task()),
    "channels alone": (GatherFamily(), PlanesLayer(32, 64, (14, 14), shared=1, zeros=0.8).task()),
    "depthwise": (PlaneDepthwiseFamily(), PlanesLayer(16, 16, (14, 14), groups=16, zeros=0.0).task()),
    "rows": (RowsFamily(), ROWS.task),
}


def modelled(spec: Spec, board: Target = BOARD) -> float:
    trial = trial_of(spec)
    module = IRModule({"kernel": trial.function.with_attr("global_symbol", "kernel")})
    return estimate_kernel(module, board, trial.tables, caches=False).cycles


@needs("qemu-aarch64", "llvm-mca", "aarch64-linux-gnu-g++")
@pytest.mark.parametrize("name", list(TASKS))
def test_formulas_are_near_the_model(name: str) -> None:
    family, task = TASKS[name]
    for spec in family.candidates(task, BOARD.machine)[:2]:
        assert spec.cycles(BOARD.machine) == pytest.approx(modelled(spec), rel=0.35)


@needs("qemu-aarch64", "llvm-16", "aarch64-linux-gnu-g++")
@pytest.mark.parametrize("name", list(TASKS))
def test_formulas_are_near_the_model_of_a_core_with_two_products(name: str) -> None:
    family, task = TASKS[name]
    for spec in family.candidates(task, DOUBLED.machine)[:2]:
        assert spec.cycles(DOUBLED.machine) == pytest.approx(modelled(spec, DOUBLED), rel=0.35)


@pytest.mark.parametrize("name", list(TASKS))
def test_other_cores_wait_for_nothing(name: str) -> None:
    family, task = TASKS[name]
    spec = family.candidates(task, BOARD.machine)[0]
    assert spec.cycles(replace(BOARD.machine, in_order=False)) < 0.75 * spec.cycles(BOARD.machine)

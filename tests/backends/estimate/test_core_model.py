"""llvm-mca's answers for blocks whose cycles are known by hand, and cores it has no model for."""

from __future__ import annotations

import pytest

from reconvene.backends.estimate.core_model import CORES, block_cycles, find_core
from reconvene.backends.estimate.tools import llvm_version
from reconvene.frontend.base.errors import InputError
from tests.support.tools import needs

pytestmark = needs("llvm-mca")


def test_one_multiply_add_a_cycle_on_the_a72() -> None:
    core = find_core("aarch64", "cortex-a72")
    assert (core.model, core.exact, core.multiply_adds) == ("Cortex-A57", True, 1)
    independent = [f"fmla v{i}.4s, v30.4s, v31.4s" for i in range(16)]
    one_chain = ["fmla v0.4s, v30.4s, v31.4s"] * 16
    first, second = block_cycles(core, [independent, one_chain])
    assert first.steady == first.throughput == 16
    assert second.throughput == 16
    assert second.steady > 3 * first.steady


def test_a_core_without_its_own_model_says_whose_it_has() -> None:
    core = find_core("aarch64", "neoverse-n1")
    assert core.exact == (core.model == "Neoverse N1")
    assert core.llvm == llvm_version()
    assert core.multiply_adds == (2 if core.exact else 1)


@pytest.mark.parametrize(("architecture", "cpu"), [("aarch64", "cortex-z80"), ("aarch64", ""), ("arm", "cortex-a7")])
def test_no_model(architecture: str, cpu: str) -> None:
    with pytest.raises(InputError, match=r"has no model of the core.* of 'board'; it has one of cortex-m4") as caught:
        find_core(architecture, cpu, "board")
    assert all(core in str(caught.value) for core in CORES)


def test_no_blocks() -> None:
    assert block_cycles(find_core("aarch64", "cortex-a53"), []) == []


@pytest.mark.parametrize("cpu", ["cortex-a72", "cortex-a76"])
def test_instructions_that_a_model_lacks_count_for_nothing(cpu: str) -> None:
    """As atomic additions of libraries that were linked in."""
    core = find_core("aarch64", cpu)
    known = ["fmla v0.4s, v1.4s, v2.4s"] * 8
    with_others, alone = block_cycles(core, [["ldaddal x0, x1, [x2]", *known, "swp x3, x4, [x2]"], known])
    assert with_others.steady == pytest.approx(alone.steady, abs=1)

"""Random quantised graphs: compiled code equals the reference on integers. `benchmarks/fuzz_integers.py` runs many."""

from __future__ import annotations

import pytest
from fuzz_integers import checked

from reconvene.backends.kernels.tiles import Machine
from tests.support.tools import needs


@pytest.mark.parametrize("seed", [3, 11])
def test_every_bit_is_the_references(seed: int) -> None:
    assert checked(seed) == "exact"


@needs("qemu-system-arm", "arm-none-eabi-g++")
def test_on_a_core_whose_registers_hold_a_word() -> None:
    assert checked(7, "cortex-m4") == "exact"


def test_so_it_is_with_codes_that_are_moved_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "codes", property(lambda machine: "uint8"))
    assert checked(2) == "exact"

"""Random quantised graphs: compiled code equals the reference on integers. `benchmarks/fuzz_integers.py` runs many."""

from __future__ import annotations

import pytest
from fuzz_integers import checked

from reconvene.backends.kernels.tiles import Machine


@pytest.mark.parametrize("seed", [3, 11])
def test_every_bit_is_the_references(seed: int) -> None:
    assert checked(seed) == "exact"


def test_so_it_is_with_codes_that_are_moved_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "codes", property(lambda machine: "uint8"))
    assert checked(2) == "exact"

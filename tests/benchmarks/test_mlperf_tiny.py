"""The table of MLPerf Tiny: ours beside published boards, each program with a row, and outputs that are not equal said so."""

from __future__ import annotations

from typing import Any

import mlperf_tiny
import pytest


def row(network: str = "ds-cnn", variant: str = "dense", **changed: Any) -> dict[str, Any]:
    """What one program gave."""
    made = {
        "network": network, "variant": variant, "dtype": "int8", "target": "cortex-m4", "macs": 2_660_000, "difference": 0.0,
        "flash": 37_000, "weights": 27_000, "ram": 20_000, "instructions": 9_000_000, "cycles": 9_340_000,
        "throughput_cycles": 9_100_000, "multiply_add_cycles": 2_600_000, "kernels": {"a": 934_000, "b": 8_400_000},
        "runtime_cycles": 9_340, "tools": {"qemu": "QEMU 7", "llvm": "LLVM 22"},
    }  # fmt: skip
    return made | changed


def test_published_boards_stand_beside_ours() -> None:
    lines = mlperf_tiny.beside([row(), row("resnet8-cifar", cycles=50_000_000)]).splitlines()
    assert lines[2] == "| ours, dense (modelled) | cortex-m4 | 50.00 | 9.34 |  |  |"
    (native,) = [line for line in lines if "own kernels" in line]
    assert native.split(" | ")[2] == "46.69"
    assert not any("cortex-m7" in line for line in lines)


@pytest.mark.parametrize("entry", mlperf_tiny.PUBLISHED, ids=lambda entry: f"{entry.software} {entry.target}")
def test_an_inference_takes_clock_over_rate(entry: mlperf_tiny.Published) -> None:
    assert [entry.megacycles(network) * rate for network, rate in zip(mlperf_tiny.TASKS, entry.rates, strict=True)] == (
        pytest.approx([entry.megahertz] * 4)
    )


def test_every_program_has_a_row_and_says_whether_its_bits_are_equal() -> None:
    rows = [row(), row(dtype="float32", difference=3e-7), row("resnet8-cifar")]
    lines = mlperf_tiny.table(rows).splitlines()[2:]
    assert len(lines) == 3
    assert [line.split(" | ")[-1] for line in lines] == ["bits equal |", "within 3e-07 |", "bits equal |"]
    assert "| 37.0 | 27.0 | 20.0 | 9.00 M | 9.34 | 9.10 | 0.28 |" in lines[2]


def test_the_dearest_kernels_come_first() -> None:
    last = mlperf_tiny.shares([row(), row(variant="half")]).splitlines()[-1]
    assert last == "| ds-cnn | cortex-m4 | b 90%, a 10% | 0.1% |"
    page = mlperf_tiny.page({"setting": {"seed": 0}, "rows": [row()]})
    assert "seed 0; LLVM 22; QEMU 7." in page

"""Figures of sparse networks stand beside those of the dense one for the same target and runtime."""

from __future__ import annotations

from typing import Any

import sparse_bundles


def row(target: str, structure: str, weights: int, bundle: int, **changed: Any) -> dict[str, Any]:
    """What one network took."""
    runtime = {"bundle": bundle, "weights": weights, "program": None, "resident": None}
    made = {
        "network": "net", "target": target, "structure": structure, "plain_bytes": 8_000_000, "not_zero": 200_000,
        "kernels": {"rows": 3, "winograd": 1}, "skipping_bytes": weights - 1, "other_bytes": 1, "dense_with_zeros": 0,
        "weights_bytes": weights, "runtimes": {"static": runtime, "none": {**runtime, "program": bundle // 2}},
    }  # fmt: skip
    return made | changed


ROWS = [
    row("host", "dense", 16_000_000, 20_000_000), row("host", "row-block:4", 1_200_000, 2_000_000),
    row("rpi4", "dense", 32_000_000, 40_000_000), row("rpi4", "row-block:4", 1_000_000, 2_000_000, dense_with_zeros=2),
]  # fmt: skip


def test_every_sparse_network_is_beside_the_dense_one_for_its_target() -> None:
    page = sparse_bundles.page(ROWS)
    assert "| net | host | row-block:4 | 10.0% | 8.00 | 1.20 | 1.20 | 0.00 | 15.0% | 3 rows, 1 winograd |" in page
    assert "| net | rpi4 | row-block:4 | static | 40.00 | 2.00 | 5.0% |  |  |  |  |" in page
    assert "| net | host | row-block:4 | none | 20.00 | 2.00 | 10.0% | 10.00 | 1.00 |  |  |" in page
    assert "dense kernel, for speed: 2." in page and "for speed: none." in sparse_bundles.page(ROWS[:2])

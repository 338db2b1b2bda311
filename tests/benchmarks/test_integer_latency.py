"""The comparison of engines in 8 bits: what its tables say."""

from __future__ import annotations

from typing import Any

import pytest
from integer_latency import ENGINES, TYPES, summary, table

MS = {"reconvene": {"float32": 6.0, "int8": 2.0}, "onnxruntime": {"float32": 8.0, "int8": 4.0},
      "openvino": {"float32": 6.0, "int8": 2.5}}  # fmt: skip


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [
        {
            "network": network, "variant": variant, "engine": engine, "dtype": dtype, "difference": 1e-3,
            "median_ms": factor * MS[engine][dtype], "p10_ms": 1.0, "p90_ms": 9.0,
        }
        for network, factor in (("resnet18", 1.0), ("resnet50", 2.0))
        for variant in ("dense", "pruned 50%")
        for dtype in TYPES
        for engine in ENGINES
    ]  # fmt: skip


def test_each_engine_has_its_own_float32_beside(rows: list[dict[str, Any]]) -> None:
    assert "| resnet50 dense | onnxruntime | 16.00 | 8.00 | 1.00-9.00 | 2.00x | 1.0e-03 |" in table(rows)


def test_means_are_of_networks_that_both_have(rows: list[dict[str, Any]]) -> None:
    assert "| dense | int8 | 0.50 | 0.80 |" in summary(rows)
    some = [row for row in rows if (row["network"], row["engine"]) != ("resnet50", "openvino")]
    assert "| pruned 50% | float32 | 0.75 | 1.00 |" in summary(some)

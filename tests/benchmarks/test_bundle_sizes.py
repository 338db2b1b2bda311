"""Bytes of bundles by type."""

from __future__ import annotations

import bundle_sizes
import pytest
import torch
from torch import nn

from tests.support.tools import needs


def small(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Conv2d(64, 16, 1)).eval()


@needs("aarch64-linux-gnu-g++")
def test_narrower_types_take_fewer_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_sizes, "build", small)
    monkeypatch.setattr(bundle_sizes, "image_size", lambda name, small: 8)
    rows = list(bundle_sizes.rows_of("small", "rpi5"))
    weights = {(row["variant"], row["dtype"]): row["weights"] for row in rows}
    whole, half, bytes_ = (weights["dense", dtype] for dtype in bundle_sizes.TYPES)
    # All layers have a bias, and tables of scales in 8 bits.
    assert 0.45 * whole < half < 0.6 * whole and 0.25 * whole <= bytes_ < 0.45 * whole
    assert all(weights["pruned 50%", dtype] < 0.6 * weights["dense", dtype] for dtype in bundle_sizes.TYPES)
    text = bundle_sizes.page({"environment": {"torch": "2"}, "rows": rows})
    assert "| small, dense | " in text and "| small, pruned 50% | " in text and "cortex-a76" in text

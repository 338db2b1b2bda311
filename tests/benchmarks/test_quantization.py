"""The page of what 8-bit integers cost."""

from __future__ import annotations

import quantization


def test_a_row_says_what_was_measured() -> None:
    row = {
        "way": "min-max", "photographs": 10, "right": 8, "dense": 9, "agreement": 0.875, "decibels": 20.26, "examples": 34,
        "noisiest": 9.94, "float": [], "bytes": 26, "bytes_before": 100,
    }  # fmt: skip
    shown = quantization.page({"setting": {"images": 24}, "rows": [row]})
    assert "| min-max | 20.3 | 9.9 | 87.5% | 8 of 10 | 26.0% |" in shown
    assert "the other ten and 24 crops of these. In float 9 of these ten are right." in shown


def test_every_way_is_one_that_quantize_takes() -> None:
    import inspect

    import reconvene

    known = inspect.signature(reconvene.quantize).parameters
    assert all(set(options) <= set(known) for options in quantization.WAYS.values())

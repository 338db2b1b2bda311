"""The comparison of engines in 8 bits: what its tables say."""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path
from typing import Any

import engines
import pytest
import torch
from engines import death
from integer_latency import ENGINES, TYPES, _saved, facts_of_run, largest_sums, means, summary, table

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


def test_an_engine_that_died_has_dashes_and_is_in_no_mean(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if (row["network"], row["engine"], row["dtype"]) == ("resnet50", "openvino", "int8"):
            del row["median_ms"], row["p10_ms"], row["p90_ms"], row["difference"]
            row["died"] = "SIGSEGV"
    assert "| resnet50 dense | openvino | 12.00 | - | - | - | - |" in table(rows)
    assert "| dense | int8 | 0.50 | 0.80 |" in means(rows)


def test_what_an_engine_dies_of_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    def raising(*_: Any) -> Any:
        raise ValueError

    one = (torch.nn.Identity(), (torch.zeros(1),), 1, "model")
    assert death("eager", *one) is None
    monkeypatch.setitem(engines.ENGINES, "eager", killed)
    assert death("eager", *one) == "SIGKILL"
    monkeypatch.setitem(engines.ENGINES, "eager", raising)
    assert death("eager", *one) is None


def test_means_are_of_networks_that_both_have(rows: list[dict[str, Any]]) -> None:
    assert "| dense | int8 | 0.50 | 0.80 |" in means(rows)
    some = [row for row in rows if (row["network"], row["engine"]) != ("resnet50", "openvino")]
    assert "| pruned 50% | float32 | 0.75 | 1.00 |" in means(some)


def test_a_run_with_other_settings_is_no_beginning_of_this_one(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    options = argparse.Namespace(
        networks=["resnet18"], engines=["reconvene"], sparsity=0.5, choose="model", repeat=50, seed=0, seconds=None,
        json=tmp_path / "record.json",
    )  # fmt: skip
    assert _saved(options) == []
    options.json.write_text(json.dumps({"environment": facts_of_run(options), "rows": rows}))
    options.networks, options.seconds = ["resnet50"], 10.0
    assert _saved(options) == rows
    options.sparsity, options.repeat = 0.25, 9
    with pytest.raises(SystemExit, match="of another sparsity and repeat"):
        _saved(options)


def test_the_largest_sums_are_whole_in_our_code(rows: list[dict[str, Any]]) -> None:
    largest = largest_sums(["reconvene", "eager"])
    assert largest == {"reconvene": 1.0, "eager": 1.0}
    assert "over what they are: reconvene 1.00, eager 1.00." in summary({"rows": rows, "largest": largest})

"""The demo finishes without what is missing, and says so loudly."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from reconvene.driver.reports.report import Fact, Report, make_report
from reconvene.driver.verbs import demo
from reconvene.frontend.base.errors import CheckError, InputError
from tests.driver.records import compaction, latency


def a_report(dataset: str, repeat: int) -> Report:
    made = make_report(compaction(), f"VGG-16 on {dataset}", {}).with_latency(latency())
    return dataclasses.replace(made, facts=(Fact("Accuracy on 500 test images", "99.4%", "99.2%"),))


def refused(repeat: int) -> Report:
    raise InputError("EfficientNet-Lite0 needs packages that are missing; get them with: pip install x")


def test_a_part_that_cannot_run_is_skipped_loudly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "vgg", a_report)
    monkeypatch.setattr(demo, "efficientnet", refused)
    answer = demo.run(demo.Request(tmp_path, 3))
    console = Console(file=io.StringIO(), width=80)
    answer.show(console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "SKIPPED EfficientNet-Lite0 on ImageNet: " in shown and "pip install x" in shown
    lines = [" ".join(line.replace("│", " ").split()) for line in shown.splitlines()]
    assert {"latency 4.20 ms 1.30 ms 3.23× faster", "right 99.4% 99.2%"} <= set(lines) and "report.html" in shown
    assert "Skipped: EfficientNet-Lite0 on ImageNet." in (tmp_path / "report.html").read_text(encoding="utf-8")
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert len(data["reports"]) == 1 and data["notes"][0].startswith("Skipped")
    assert list(answer.data["skipped"]) == ["EfficientNet-Lite0 on ImageNet"]


def test_a_failed_check_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def differs(dataset: str, repeat: int) -> Report:
        raise CheckError("the graphs differ")

    monkeypatch.setattr(demo, "vgg", differs)
    with pytest.raises(CheckError):
        demo.run(demo.Request(tmp_path, 3))
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_that_the_demo_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'mnist'; choose one of digits, fashion-mnist, cifar10"):
        demo.run(demo.Request(tmp_path / "out", 3, "mnist"))
    assert not (tmp_path / "out").exists()

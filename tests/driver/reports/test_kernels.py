"""The report of a compilation: which kernels, and what zeros brought, for people and for programs."""

from __future__ import annotations

import dataclasses
import json

import torch
from rich.console import Console
from torch import Tensor, nn

import reconvene
from reconvene.backends.choosing.layer_choices import LayerChoice
from reconvene.driver.reports.kernels import SCHEMA, KernelReport
from reconvene.driver.reports.zeros import MaskPicture
from reconvene.frontend.capture import capture
from reconvene.passes.outcome import LayerZeros

LAYERS = (
    LayerChoice("stem.weight", (8, 3, 3, 3), 216, 0, None, "convolution", False, 1, 2e-5, "convolution", 2e-5),
    LayerChoice(
        "a.weight", (8, 8, 3, 3), 576, 432, "row-block:4", "gather", True, 1, 1e-5, "winograd", 2.5e-5, 720, 9216
    ),
    LayerChoice("<b>.weight", (96, 32, 1, 1), 3072, 2765, "unstructured", "dots", False, 7, 3e-6, "convolution", 4e-6),
    LayerChoice("c.weight", (8, 1, 3, 3), 72, 36, "2:4", "depthwise", False),
)
REPORT = KernelReport("net", "rpi4", "s", LAYERS, 12345)


def shown(report: KernelReport) -> str:
    console = Console(width=120, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report.table())
    return console.export_text()


def test_a_table_of_the_layers_with_zeros() -> None:
    text = shown(REPORT)
    assert "stem.weight" not in text and "a.weight" in text and "<b>.weight" in text
    (row,) = (line for line in text.splitlines() if "a.weight" in line)
    assert [cell.strip() for cell in row.strip("│ ").split("│")] == [
        "a.weight", "row-block:4", "gather", "25.0 %", "0.0100 ms", "0.0250 ms", "2.50×",
    ]  # fmt: skip
    (row,) = (line for line in text.splitlines() if "c.weight" in line)
    assert row.count("–") == 3
    assert REPORT.lines() == ("layers: 1 convolution, 1 gather, 1 dots, 1 depthwise",)


def test_cycles_are_counted() -> None:
    cycles = KernelReport("net", "rpi4", "cycles", (LayerChoice(
        "a.weight", (8, 8, 3, 3), 576, 432, "row-block:4", "gather", True, 1, 12345.0, "winograd", 23456.0
    ),), 1)  # fmt: skip
    assert "12.3 k cycles" in shown(cycles) and "1.90×" in shown(cycles)


def test_layers_on_codes_are_counted_and_what_is_in_float_is_named() -> None:
    layer = LayerChoice("a.weight", (8, 8, 3, 3), 576, 0, None, "integer_convolution", False, calls=2, dtype="uint8")
    other = LayerChoice("b.weight", (8, 8), 64, 0, None, "convolution", False)
    report = KernelReport("net", "rpi4", "cycles", (layer, other), 1, floats=("softmax at net.py:7",))
    assert report.lines()[1:] == ("2 of 3 layers on 8-bit integers", "in float32 between them: softmax at net.py:7")


def test_zeros_that_rounding_makes_are_not_told_as_zeros() -> None:
    layer = LayerChoice("a.weight", (8, 8, 3, 3), 576, 7, "unstructured", "integer_convolution", False, dtype="int8")
    pruned = dataclasses.replace(layer, name="b.weight", zeros=288)
    report = KernelReport("net", "rpi4", "cycles", (layer, pruned), 1)
    assert report.sparse == (pruned,)
    assert len(KernelReport("net", "rpi4", "cycles", (dataclasses.replace(layer, dtype="float32"),), 1).sparse) == 1


def test_programs_get_everything() -> None:
    data = json.loads(REPORT.to_json())
    assert data["schema"] == SCHEMA and data["unit"] == "s" and data["weights_bytes"] == 12345
    assert [layer["name"] for layer in data["layers"]] == [layer.name for layer in LAYERS]
    assert data["layers"][1] == {
        "name": "a.weight", "shape": [8, 8, 3, 3], "weights": 576, "zeros": 432, "structure": "row-block:4",
        "kernel": "gather", "planes": True, "calls": 1, "cost": 1e-5, "dense": "winograd", "dense_cost": 2.5e-5,
        "bytes": 720, "dense_bytes": 9216, "dtype": "float32",
    }  # fmt: skip


def test_a_page_with_masks_storage_and_costs() -> None:
    zeros = (
        LayerZeros("stem.weight", (8, 3, 3, 3), 216, 0, None, {"dense": 864}),
        LayerZeros("a.weight", (8, 8, 3, 3), 576, 432, "row-block:4", {"dense": 2304, "csr": 890, "block rows": 700}),
    )
    pictures = {"a.weight": MaskPicture("data:image/png;base64,AAAA", "data:image/png;base64,BBBB", (4, 3), 0.25)}
    report = dataclasses.replace(REPORT, zeros=zeros, pictures=pictures)
    page = report.to_html()
    for text in ("AAAA", "BBBB", "one dot for 4x3 weights", "25.0 % not zero", "block rows 700 bytes", "1.56 kB where"):
        assert text in page
    assert "best dense kernel" in page and "mask of stem.weight" not in page
    data = json.loads(report.to_json())
    assert data["zeros"][1]["storage"]["csr"] == 890 and "pictures" not in data
    assert "Weights as the model has them" not in REPORT.to_html()


def test_zeros_that_no_kernel_of_ours_reads_are_named() -> None:
    class Volumes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.solid = nn.Conv3d(3, 8, 3), nn.Conv3d(8, 8, 1)
            self.line, self.up = nn.Conv1d(8, 8, 3), nn.ConvTranspose1d(8, 8, 2, stride=2)
            self.inner, self.head = nn.Linear(8, 16), nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.up(self.line(self.solid(self.first(x).relu()).flatten(2)).relu())
            return self.head(self.inner(x.mean(-1)).relu())

    inputs = (torch.randn(1, 3, 4, 5, 4),)
    result = reconvene.prune(Volumes().eval(), inputs, structure="unstructured", sparsity=0.5)
    built = reconvene.compile(result.module, inputs, check=False)
    report = KernelReport.of(built, "volumes", capture(result.module, inputs))
    assert report.foreign == ("solid.weight",)
    assert [layer.name for layer in report.sparse] == ["line.weight", "up.weight", "inner.weight"]
    assert report.lines()[1].endswith("computed by TVM's own: solid.weight")
    assert report.without_kernels.replace("'", "&#39;") in report.to_html()
    assert json.loads(report.to_json())["foreign"] == ["solid.weight"]


def test_a_page() -> None:
    page = REPORT.to_html()
    for text in (
        "&lt;b&gt;.weight",
        "stem.weight",
        "25.0 %",
        "2.50×",
        "12.3 kB",
        "All 4 layers",
        "planes",
        "720 bytes",
        "9.22 kB",
    ):
        assert text in page
    assert "<b>.weight" not in page
    assert "<p>None.</p>" in KernelReport("net", "rpi4", "s", LAYERS[:1], 1).to_html()

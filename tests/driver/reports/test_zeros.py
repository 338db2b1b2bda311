"""Zeros in a report: sums that add up, bytes by format, and masks as images."""

from __future__ import annotations

import base64
import dataclasses
import io
import json

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from reconvene.driver.reports.report import make_report
from reconvene.driver.reports.tables import timing_table
from reconvene.driver.reports.zeros import MaskPicture, mask_pictures, structure_sums, total_storage
from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.compaction import compact
from reconvene.passes.outcome import LayerZeros
from reconvene.passes.pruning.zeros_latency import LayerTiming, Timing
from reconvene.passes.zeros import zeros_of
from tests.driver.records import compaction

ZEROS = (
    LayerZeros("stem.weight", (8, 3, 3, 3), 216, 0, None, {"dense": 864}, reason="a <first> convolution"),
    LayerZeros("a.weight", (8, 8, 3, 3), 576, 256, "2:4", {"dense": 2304, "csr": 2500, "n:m": 1300}, "2:4"),
    LayerZeros("b.weight", (8, 8, 3, 3), 576, 544, "2:4", {"dense": 2304, "csr": 180, "n:m": 1300}, "2:4"),
)


def test_sums_by_structure() -> None:
    dense, sparse = structure_sums(ZEROS)
    assert (dense.structure, dense.layers, dense.weights, dense.bytes) == ("dense", 1, 216, 864)
    assert (sparse.layers, sparse.weights, sparse.zeros, sparse.dense_bytes, sparse.bytes) == (2, 1152, 800, 4608, 1480)
    assert total_storage(ZEROS) == {"dense": 5472, "csr": 3544, "smallest": 2344}


def test_reports_have_them() -> None:
    found = dataclasses.replace(compaction(), zeros=ZEROS)
    report = dataclasses.replace(
        make_report(found, "net", {}), pictures={"a.weight": MaskPicture("data:image/png;base64,AAAA")}
    )
    data = json.loads(report.to_json())
    assert data["zeros"][1]["storage"] == {"dense": 2304, "csr": 2500, "n:m": 1300}
    assert data["zeros"][0]["reason"] == "a <first> convolution"
    page = report.to_html()
    for text in ("Zeros inside of layers", "2.34 kB where", "3.54 kB as CSR", "5.47 kB dense", "30.6 %", "5.6 %"):
        assert text in page
    assert 'src="data:image/png;base64,AAAA"' in page and "&lt;first&gt;" in page
    assert "Zeros inside of layers" not in make_report(compaction(), "net", {}).to_html()


def test_how_a_latency_was_reached() -> None:
    layers = (LayerTiming("stem.weight", 0.0, 1000.0, 1000.0), LayerTiming("<a>.weight", 0.75, 3000.0, 900.0))
    timing = Timing(0.5, 0.475, 0.76, "cycles", 4000.0, 1900.0, layers)
    found = dataclasses.replace(compaction(), zeros=ZEROS)
    report = dataclasses.replace(make_report(found, "net", {"target": "rpi4"}), timing=timing)
    assert json.loads(report.to_json())["timing"]["layers"][1] == {
        "name": "<a>.weight", "zeros": 0.75, "dense": 3000.0, "sparse": 900.0,
    }  # fmt: skip
    page = report.to_html()
    for text in ("Wanted was 0.5", "0.475 was reached", "4.00 k cycles → 1.90 k cycles", "&lt;a&gt;.weight", "3.33×"):
        assert text in page
    console = Console(width=120, record=True, quiet=False, file=io.StringIO())
    console.print(timing_table(timing))
    shown = console.export_text()
    assert "stem.weight" not in shown and "75.0%" in shown and "2.11×" in shown and "Time, modelled" in shown
    assert dataclasses.replace(timing, unit="s").told == "measured"


def test_images_are_the_masks() -> None:
    """Of a transposed convolution too, whose weight is stored with its input channels first; of large weights the beginning."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(500, 200), nn.Unflatten(1, (8, 5, 5)), nn.ConvTranspose2d(8, 4, 3)).eval()
    with torch.no_grad():
        model[0].weight[:, ::2] = 0
        model[2].weight[:, 1, 0, 0] = 0
    inputs = (torch.randn(1, 500),)
    found = compact(capture(model, inputs), inputs)
    pictures = mask_pictures(found.module, found.zeros)
    weight = found.module.get_parameter("2.weight").detach()
    small, large = pictures["2.weight"], pictures["0.weight"]
    assert (
        np.array_equal(pixels(small.dots), (weight.transpose(0, 1).reshape(4, 72) == 0).numpy()) and small.cells is None
    )
    assert pixels(large.dots).shape == (128, 360)


def test_large_masks_are_reduced_to_densities() -> None:
    """200 x 500 weights in cells of 4 x 3, of which the last column has 2 left over; half of the rows have no weights."""
    model = nn.Sequential(nn.Linear(500, 200), nn.ReLU(), nn.Linear(200, 3)).eval()
    kept = torch.zeros(200, 500, dtype=torch.bool)
    kept[100:, 1::3] = kept[100:104] = True
    with torch.no_grad():
        model[0].weight.copy_(torch.where(kept, 1.0, 0.0))
    module = canonicalize(capture(model, (torch.randn(1, 500),)))
    picture = mask_pictures(module, zeros_of(module))["0.weight"]
    assert picture.cells is not None and picture.cell == (4, 3) and picture.densest == 1.0
    grey = pixels(picture.cells)
    assert grey.shape == (50, 167)
    assert (
        (grey[:25] == 255).all()
        and (grey[25] == 0).all()
        and (grey[26:, :-1] == 170).all()
        and (grey[26:, -1] == 136).all()
    )


def test_the_images_of_a_weight_are_below_17_kilobytes() -> None:
    """Random zeros are what an image can be packed worst of all."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1440, 1024), nn.ReLU(), nn.Linear(1024, 3)).eval()
    with torch.no_grad():
        model[0].weight.mul_(torch.rand(1024, 1440) > 0.5)
    module = canonicalize(capture(model, (torch.randn(1, 1440),)))
    picture = mask_pictures(module, zeros_of(module))["0.weight"]
    assert 8_000 < len(picture.dots) + len(picture.cells or "") < 17_000


def pixels(address: str) -> np.ndarray:
    """Of an image in a ``data:`` address, as grey."""
    image = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    return np.asarray(image if image.mode == "1" else image.convert("L"))

"""A small portfolio of real variants, compiled for the host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from reconvene.backends.compile import compile
from reconvene.driver.portfolio.manifest import VARIANTS, Portfolio, Variant, file_sums, write_manifest
from reconvene.frontend.capture import capture
from reconvene.frontend.program_file import save_program

__all__ = ["INPUTS", "WIDTHS", "network", "small_portfolio", "variant_of"]

WIDTHS = {"large": 24, "middle": 16, "small": 8}
"""Channels of the variants' layer, from the largest to the smallest."""

INPUTS = (torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)


def network(width: int) -> nn.Module:
    """A network whose answers differ from those of any other width."""
    torch.manual_seed(width)
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 4, 1), nn.Flatten()).eval()


def small_portfolio(folder: Path, target: str = "host", runtime: str | None = None) -> Portfolio:
    """Writes a portfolio of `WIDTHS` into `folder`, which is made."""
    for name, width in WIDTHS.items():
        place = folder / VARIANTS / name
        place.mkdir(parents=True)
        model = capture(network(width), INPUTS)
        save_program(model, INPUTS, place / "model.pt2")
        built = compile(model, INPUTS, target)
        built.export(place / target, runtime=runtime)  # type: ignore[arg-type]
    portfolio = Portfolio(
        folder, "tiny", built.inputs, built.outputs, tuple(variant_of(folder, name) for name in WIDTHS)
    )
    write_manifest(portfolio, folder)
    return portfolio


def variant_of(folder: Path, name: str, names: Sequence[str] = tuple(WIDTHS)) -> Variant:
    """What `portfolio.json` says of the variant `name`."""
    width, rank = WIDTHS[name], names.index(name)
    parameters = width * 28 + 4 * (width + 1)
    return Variant(
        name=name,
        accuracy=0.9 - 0.1 * rank,
        parameters=parameters,
        nonzero=parameters,
        bytes=4 * parameters,
        macs=64 * width * (27 + 4),
        latency_ms={"host": 0.1 * width},
        peak_memory_bytes=1 << 20,
        files=file_sums(folder, name),
        source={"width": width},
    )

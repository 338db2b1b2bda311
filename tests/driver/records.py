"""A small made-up compaction for tests of what is shown, with every kind of record in it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from reconvene.driver.reports.report import Latency
from reconvene.passes.outcome import Barrier, Certificate, Compaction, GroupOutcome, LayerWidth, Size

BEFORE, AFTER = Size(14_728_266, 313_200_000, 58_913_064), Size(3_689_738, 79_000_000, 14_758_952)


def layer(name: str, before: int, after: int) -> LayerWidth:
    weight = 9 * before
    return LayerWidth(
        name, "conv2d", before, after, Size(weight, 1000 * weight, 4 * weight), Size(weight // 4, 250 * weight, weight)
    )


def compaction(layers: int = 13) -> Compaction:
    """A compaction of `layers` layers. Its module and plan are not usable."""
    return Compaction(
        module=cast(Any, SimpleNamespace()),
        plan=cast(Any, SimpleNamespace()),
        certificate=Certificate("float64", (("1x3x32x32",), ("2x3x32x32",)), 0, 1.3e-15, 3.2e-16, 1e-12, 0.42),
        before=BEFORE,
        after=AFTER,
        layers=tuple(layer(f"features.{index}", 64 + 32 * index, 32 + 16 * index) for index in range(layers)),
        groups=(
            GroupOutcome("features.0", 64, 32, 32, (), ("features.0.weight", "features.1.weight")),
            GroupOutcome("features.3", 64, 32, 30, ("rounded to a multiple of 2", "<script>"), ("features.3.weight",)),
        ),
        barriers=(Barrier("fft", "aten.fft_rfft", "no exact rule", "model.py:12", ("fc.weight",)),),
        refusals=("features.3: 2 dead channels stay, <b>rounding</b>",),
        seconds={"capture": 1.5, "analysis": 0.2},
    )


def latency() -> tuple[Latency, ...]:
    """Three engines before and after."""
    times = {"reconvene": (4.2, 1.3), "tvm-default": (310.0, 95.0), "eager": (6.1, 2.4)}
    return tuple(
        Latency(engine, variant, median, median * 0.95, median * 1.1, 50, 1, 1)
        for engine, medians in times.items()
        for variant, median in zip(("dense", "compacted"), medians, strict=True)
    )

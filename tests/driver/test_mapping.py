"""Plans of structures for whole networks: the table's times, those of the mapped network, and what comes out of pruning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import reconvene
from reconvene.backends.latency_table.measuring import Measuring
from reconvene.backends.network_times import network_times
from reconvene.frontend.base.errors import InputError
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.pruning.structure_plan import StructurePlan

X = (torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)),)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECONVENE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, 1, 1, groups=64), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1),
        nn.ReLU(), nn.Conv2d(64, 128, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("data", ["hard", "easy"])
def test_the_tables_sum_is_near_the_mapped_networks_time(data: str) -> None:
    """By the formula. The network has layers in a slower layout for their neighbours' sake, and dense ones in planes."""
    plan = reconvene.map_structures(net(), X, "rpi4", 0.85, data=data)  # type: ignore[arg-type]
    result = reconvene.prune(net(), X, structure=plan)
    module = canonicalize(reconvene.capture(net(), X))
    times = network_times(module, X, "rpi4")
    dense, mapped = times({}), times(result.plan.masks)
    assert plan.dense == pytest.approx(sum(dense.layers.values()))
    assert 0.88 * sum(mapped.layers.values()) < plan.sparse <= 1.001 * sum(mapped.layers.values())
    assert mapped.total < 0.6 * dense.total and plan.sparse < 0.6 * plan.dense


def test_a_plan_for_a_network() -> None:
    plan = reconvene.map_structures(net(), X, "rpi4")
    layers = {layer.name: layer for layer in plan.layers}
    assert list(layers) == [f"{place}.weight" for place in (0, 3, 5, 7, 9, 11, 15)]
    assert layers["3.weight"].structure == layers["9.weight"].structure == "pattern:8"
    assert layers["7.weight"].structure is not None and layers["7.weight"].scheme != "pattern:8"
    assert [layers[name].structure for name in ("0.weight", "5.weight", "15.weight")] == [None, None, None]
    assert all(layer.sparse < layer.dense for layer in plan.layers if layer.structure)  # type: ignore[operator]
    assert (plan.target, plan.timed_by, plan.unit) == ("rpi4", "model", "cycles")
    assert plan.made == {"method": "rules", "sparsity": 0.8, "beta": 0.2, "data": "hard"}
    assert StructurePlan.from_json(plan.to_json()) == plan
    result = reconvene.prune(net(), X, structure=plan)
    found = {layer.name: layer for layer in result.report.zeros}
    assert all(found[name].asked == spelled for name, spelled in plan.items())
    assert all(abs(found[name].zeros / found[name].weights - 0.8) < 0.03 for name in plan)
    assert "Plan of structures" in result.report.to_html()


def test_one_pattern_to_ignore_needs_no_list() -> None:
    plan = reconvene.map_structures(net(), X, "rpi4", ignore="9.weight")
    assert {layer.name for layer in plan.layers if layer.structure} == {"3.weight", "7.weight", "11.weight"}


def test_nothing_is_found_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    first = reconvene.map_structures(net(), X, "rpi4", data="easy")

    def never(*_: object) -> None:
        raise AssertionError("it is known already")

    monkeypatch.setattr(Measuring, "dense", never)
    monkeypatch.setattr(Measuring, "sparse", never)
    assert reconvene.map_structures(net(), X, "rpi4", data="easy") == first
    wider = reconvene.map_structures(net(), X, "rpi4", data="easy", beta=3.0)
    assert {layer.scheme for layer in wider.layers} == {"dense", "unstructured"}


def test_what_makes_no_sense_is_refused_before_the_model_is_looked_at() -> None:
    with pytest.raises(InputError, match="data are hard or easy"):
        reconvene.map_structures("none.pt2", None, data="soft")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="kernels for 'rpi4' do not run on this machine"):
        reconvene.map_structures(net(), X, "rpi4", by="time")

"""Times of layers with zeros: those of the kernels that `compile` chooses, found once, and between shares that were tried."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import reconvene.backends.latency_table.table as table_module
from reconvene.backends.boards.kernels import BoardTimes
from reconvene.backends.boards.place import parse_place
from reconvene.backends.choosing.kept_file import KeptFile
from reconvene.backends.choosing.kernel_times import HereTimes
from reconvene.backends.compile import imported_module
from reconvene.backends.estimate.choice import KernelCycles
from reconvene.backends.kernels.base import Spec
from reconvene.backends.latency_table.measuring import LayerTime, Measuring
from reconvene.backends.latency_table.table import GRID, LatencyTable, latency_table
from reconvene.backends.machines.targets import find_target
from reconvene.backends.network_times import network_times
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.structures import find_structure
from reconvene.passes.weight_views import weight_views

X = (torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)),)
RPI4 = find_target("rpi4")
BLOCKS, PUNCHED = find_structure("row-block:4"), find_structure("block-punched:8x4")
NAMES = ("0.weight", "3.weight", "5.weight", "7.weight", "8.weight", "12.weight")
SECOND = "64x64x3x3 /2 to 8x8"


def network() -> nn.Sequential:
    """Two layers of one form, ``7`` a depthwise one, and at the end a linear one."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1, groups=64), nn.Conv2d(64, 64, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12),
    ).eval()  # fmt: skip


def graph() -> CapturedModule:
    return canonicalize(capture(network(), X))


@pytest.fixture
def table(tmp_path: Path) -> LatencyTable:
    return latency_table(graph(), X, "rpi4", folder=tmp_path)


def masks(share: float, *names: str) -> dict[str, Tensor]:
    weights = network().state_dict()
    return {name: BLOCKS.mask(weights[name].square(), share) for name in names}


def test_dense_times_are_those_of_the_network(table: LatencyTable) -> None:
    """A depthwise layer and a linear one too; every layer by its form in words."""
    told = network_times(graph(), X, "rpi4")({})
    assert {name: table.dense(name).time for name in NAMES} == pytest.approx(dict(told.layers))
    assert tuple(layer.name for layer in table.layers) == NAMES and table.unit == told.unit == "cycles"
    said = {layer.name: str(layer.forms[0]) for layer in table.layers}
    assert said["8.weight"] == SECOND and said["7.weight"] == "64x1x3x3 in 64 groups to 16x16"
    assert table.dense("7.weight").kernel == "depthwise"


@pytest.mark.parametrize("share", [0.7, 0.9])
def test_the_sum_over_layers_with_zeros_is_near_the_networks(table: LatencyTable, share: float) -> None:
    """The network's own layouts cost what a layer alone does not know of, and zeros lie elsewhere."""
    sparse = ("3.weight", "5.weight", "8.weight")
    told = network_times(graph(), X, "rpi4")(masks(share, *sparse))
    known = {name: table.sparse(name, BLOCKS, share).time for name in sparse}
    assert sum(known.values()) == pytest.approx(sum(told.layers[name] for name in sparse), rel=0.05)
    assert sum(known.values()) <= 1.01 * sum(told.layers[name] for name in sparse)


def test_the_faster_of_two_layouts_and_its_kernel(table: LatencyTable) -> None:
    many, none = table.sparse("3.weight", BLOCKS, 0.9), table.dense("3.weight")
    assert many.time < 0.35 * none.time and many.kernel in ("gather", "rows")
    assert not none.planes and none.kernel in ("convolution", "winograd")
    assert many.planes == (many.kernel == "gather")


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is measured: which shares of which structure, for how many layers."""
    found: list[tuple[str, int]] = []
    dense, sparse = Measuring.dense, Measuring.sparse

    def of_dense(self: Measuring, calls):  # type: ignore[no-untyped-def]
        found.append(("dense", len(calls)))
        return dense(self, calls)

    def of_sparse(self: Measuring, calls, views, structure, share):  # type: ignore[no-untyped-def]
        found.append((f"{structure}@{share:g}", len(calls)))
        return sparse(self, calls, views, structure, share)

    monkeypatch.setattr(Measuring, "dense", of_dense)
    monkeypatch.setattr(Measuring, "sparse", of_sparse)
    return found


def test_each_form_is_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = counted(monkeypatch)
    first = latency_table(graph(), X, "rpi4", folder=tmp_path)
    assert found == []
    told = first.sparse("3.weight", BLOCKS, 0.7)
    assert found == [("dense", 1), ("row-block:4@0.5", 1), ("row-block:4@0.7", 1)]
    assert first.sparse("5.weight", BLOCKS, 0.6).time > told.time
    again = latency_table(graph(), X, "rpi4", folder=tmp_path)
    assert again.sparse("3.weight", BLOCKS, 0.7) == told and len(found) == 3
    again.fill([("5.weight", PUNCHED, 0.5), ("8.weight", PUNCHED, 0.5)], NAMES)
    assert found[3:] == [("dense", 4), ("block-punched:8x4@0.5", 2)]
    other = latency_table(graph(), X, "rpi3", folder=tmp_path)
    other.dense("3.weight")
    assert found[5:] == [("dense", 1)] and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 1, "times": 3}', '{"format": 7}', '{"format": 1, "times": {"x": 1, "y": {}}}']
)
def test_a_damaged_file_counts_as_empty(text: str, tmp_path: Path) -> None:
    told = latency_table(graph(), X, "rpi4", folder=tmp_path).dense("3.weight")
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    assert latency_table(graph(), X, "rpi4", folder=tmp_path).dense("3.weight") == told


@pytest.mark.parametrize("wrong", [-1, True, "1", None, 1e999])
def test_an_entry_that_is_none_is_found_anew(wrong: object, tmp_path: Path) -> None:
    told = latency_table(graph(), X, "rpi4", folder=tmp_path).dense("3.weight")
    (path,) = tmp_path.iterdir()
    record = json.loads(path.read_text())
    for entry in record["times"].values():
        assert entry["layer"] == "64x64x3x3 to 16x16"
        entry["time"] = wrong
    path.write_text(json.dumps(record).replace("Infinity", "1e999"))
    assert latency_table(graph(), X, "rpi4", folder=tmp_path).dense("3.weight") == told


def test_what_is_not_to_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert latency_table(graph(), X, "rpi4", folder=tmp_path / "file").dense("3.weight").time > 0


class Known(Measuring):
    """Times by share that a test says, for every layer."""

    def __init__(self, times: dict[float, float]) -> None:
        self.times = times
        own = Measuring(imported_module(graph(), X), RPI4.machine, "auto")
        self.forms = own.forms

    def dense(self, calls):  # type: ignore[no-untyped-def]
        return {form: LayerTime(self.times[0.0], "convolution") for form in calls}

    def sparse(self, calls, views, structure, share):  # type: ignore[no-untyped-def]
        return {form: LayerTime(self.times[share], f"at {share:g}") for form in calls}


KNOWN, VIEWS = Known({}), weight_views(graph())


def known(folder: Path, *times: float) -> LatencyTable:
    KNOWN.times = dict(zip(GRID, times, strict=True))
    return LatencyTable(VIEWS, KNOWN, KeptFile.of("x", (), folder), "cycles")


def test_between_shares_by_a_line_and_beyond_the_last_as_there(tmp_path: Path) -> None:
    table = known(tmp_path, 100, 80, 60, 40, 20, 10, 5)
    by_share = {share: table.sparse("3.weight", BLOCKS, share) for share in (0, 0.25, 0.5, 0.75, 0.8, 0.98, 0.995)}
    assert {share: one.time for share, one in by_share.items()} == pytest.approx(
        {0: 100, 0.25: 90, 0.5: 80, 0.75: 50, 0.8: 40, 0.98: 5, 0.995: 5}
    )
    assert by_share[0].kernel == "convolution" and by_share[0.75].kernel == by_share[0.8].kernel == "at 0.8"
    half = find_structure("2:4")
    assert table.sparse("3.weight", half, 0.9).time == table.sparse("3.weight", half, 0).time == 80


@given(st.lists(st.floats(0, 100), min_size=len(GRID), max_size=len(GRID)), st.floats(0, 0.999), st.floats(0, 0.999))
def test_more_zeros_never_take_longer(times: list[float], one: float, other: float) -> None:
    table = known(Path(os.devnull) / "none", *times)
    less, more = sorted((one, other))
    assert table.sparse("3.weight", BLOCKS, more).time <= table.sparse("3.weight", BLOCKS, less).time + 1e-9
    assert table.sparse("3.weight", BLOCKS, less).time <= times[0] + 1e-9


def test_a_weight_that_is_called_twice(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.down = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.down(self.conv(x)))

    torch.manual_seed(0)
    x = (torch.randn(1, 16, 16, 16),)
    module = canonicalize(capture(Twice().eval(), x))
    table, told = latency_table(module, x, "rpi4", folder=tmp_path), network_times(module, x, "rpi4")({})
    (conv,) = (layer for layer in table.layers if layer.name == "conv.weight")
    assert [form.result for form in conv.forms] == [(1, 16, 16), (1, 8, 8)]
    assert table.dense("conv.weight").time == pytest.approx(told.layers["conv.weight"])
    assert table.sparse("conv.weight", BLOCKS, 0.9).time < 0.5 * table.dense("conv.weight").time


def test_judges_are_those_of_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONVENE_CACHE", str(tmp_path / "cache"))
    asked: list[Sequence[Sequence[Spec]]] = []
    monkeypatch.setattr(
        HereTimes, "__call__", lambda self, groups: asked.append(groups) or [[0.5] * len(g) for g in groups]
    )
    measured = latency_table(graph(), X, "host", "time", folder=tmp_path)
    assert measured.unit == "s" and measured.dense("12.weight").time == 0.5
    assert sum(len(group) for groups in asked for group in groups) < 20  # Of one layer, not of the network's.
    monkeypatch.setattr(KernelCycles, "_cycles", lambda self, trial: 1000.0)
    emulated = latency_table(graph(), X, "rpi4", "cycles", folder=tmp_path)
    assert emulated.unit == "cycles" and emulated.dense("12.weight").time >= 1000
    assert len(list(tmp_path.glob("layer-times-*.json"))) == 2
    with pytest.raises(InputError, match="kernels for 'rpi4' do not run on this machine"):
        latency_table(graph(), X, "rpi4", "time")
    with pytest.raises(InputError, match="told by model, cycles, time, not by 'moon'"):
        latency_table(graph(), X, "rpi4", "moon")


def test_a_boards_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine that this one is not; what one board told is not another one's."""
    monkeypatch.setenv("RECONVENE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(BoardTimes, "__call__", lambda self, groups: [[0.25] * len(group) for group in groups])
    board = parse_place("rpc://board:9090")
    told = latency_table(graph(), X, "rpi4", "time", board, tmp_path)
    assert told.unit == "s" and told.dense("12.weight").time == 0.25
    latency_table(graph(), X, "rpi4", "time", parse_place("rpc://other:9090"), tmp_path).dense("12.weight")
    assert len(list(tmp_path.glob("layer-times-*.json"))) == 2
    with pytest.raises(InputError, match="a board tells times by its clock, and 'cycles' needs none"):
        latency_table(graph(), X, "rpi4", "cycles", board, tmp_path)


def test_layers_of_other_kinds(tmp_path: Path) -> None:
    """Grouped and transposed convolutions and a recurrent layer: those that have kernels of ours are told, dense and sparse."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.grouped = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1, groups=4)
            self.up, self.gru = nn.ConvTranspose2d(32, 16, 2, 2), nn.GRU(16, 16, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.up(self.grouped(self.stem(x)))
            out: Tensor = self.gru(x.mean(3).transpose(1, 2))[0]
            return out

    torch.manual_seed(0)
    module = canonicalize(capture(Mixed().eval(), X))
    table, told = latency_table(module, X, "rpi4", folder=tmp_path), network_times(module, X, "rpi4")({})
    assert {"stem.weight", "grouped.weight"} <= {layer.name for layer in table.layers} <= set(told.layers)
    for layer in table.layers:
        assert table.dense(layer.name).time == pytest.approx(told.layers[layer.name])
        assert table.sparse(layer.name, BLOCKS, 0.95).time <= table.dense(layer.name).time
    assert table.sparse("grouped.weight", BLOCKS, 0.95).time < table.dense("grouped.weight").time


def test_entries_are_of_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latency_table(graph(), X, "rpi4", folder=tmp_path).dense("3.weight")
    monkeypatch.setattr(table_module, "code_version", lambda: "another")
    found = counted(monkeypatch)
    latency_table(graph(), X, "rpi4", folder=tmp_path).dense("3.weight")
    assert found == [("dense", 1)]


def test_a_share_out_of_range(table: LatencyTable) -> None:
    with pytest.raises(InputError, match=r"sparsity 1.5 is outside 0\.\.1"):
        table.sparse("3.weight", BLOCKS, 1.5)

"""Choosing kernels: which candidates there are, who decides, and what is remembered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from tvm import tirx

from reconvene.backends.choosing import kept_file
from reconvene.backends.choosing.cache import ChoiceCache
from reconvene.backends.choosing.choice import WINOGRAD, choose
from reconvene.backends.choosing.cost import AnalyticCost
from reconvene.backends.choosing.kernel_times import HereTimes
from reconvene.backends.compile import compile
from reconvene.backends.kernels.base import LayerSpec, Task
from reconvene.backends.kernels.convolution import ConvolutionSpec
from reconvene.backends.kernels.direct import DirectFamily, fitted
from reconvene.backends.kernels.epilogue import Epilogue
from reconvene.backends.kernels.families import FAMILIES, candidates
from reconvene.backends.kernels.tiles import Machine, Tile
from reconvene.backends.kernels.winograd import WinogradSpec
from reconvene.backends.kernels.winograd_family import WinogradFamily
from reconvene.backends.lowering.layout import dense_view
from reconvene.backends.machines.targets import find_target


def specification(
    height: int, width: int, *, lanes: int = 16, channels: int = 64, **changes: object
) -> ConvolutionSpec:
    blocks = -(-channels // lanes)
    view = dense_view(1, blocks, height, width, lanes, 1)
    spec = ConvolutionSpec(
        source=view, result=view, blocks=blocks, rest=channels % lanes, banded=False, kernel=(3, 3), stride=(1, 1),
        dilation=(1, 1), padding=(1, 1), tile=Tile(1, 1, 1), epilogue=Epilogue(),
    )  # fmt: skip
    return replace(spec, **changes)  # type: ignore[arg-type]


MACHINE = Machine(64, 32, 2**20, cores=2)


@pytest.mark.parametrize(
    ("spec", "sizes"),
    [
        (specification(8, 8), (2, 4)),
        (specification(3, 8), (2,)),
        (specification(1, 8), ()),
        (specification(8, 8, stride=(2, 2)), ()),
        (specification(8, 8, dilation=(2, 2)), ()),
        (specification(8, 8, kernel=(3, 1)), ()),
        (specification(8, 8, banded=True), ()),
    ],
)
def test_where_it_applies(spec: ConvolutionSpec, sizes: tuple[int, ...]) -> None:
    assert tuple(size for size in (2, 4) if WinogradFamily(size).candidates(Task(spec), MACHINE)) == sizes


def test_work_is_cut_evenly_for_the_cores() -> None:
    """Large images give every core the same number of chunks; small ones share the channels of one."""
    large = WinogradFamily(2).candidates(Task(specification(56, 56)), MACHINE)[0]
    assert large.split == "tiles" and -(-large.tiles // large.chunk) % MACHINE.cores == 0
    small = WinogradFamily(4).candidates(Task(specification(7, 7)), MACHINE)[0]
    assert small.split == "channels" and small.chunk == small.tiles == 4


class Given:
    """A cost that prefers the candidate at `index` by `factor`."""

    def __init__(self, index: int, factor: float = 0.5) -> None:
        self.index, self.factor, self.asked = index, factor, 0

    def __call__(self, layers: Sequence[Sequence[LayerSpec]]) -> list[list[float]]:
        self.asked += len(layers)
        return [[self.factor if i == self.index else 1.0 for i in range(len(layer))] for layer in layers]


def test_candidates_are_distinct_and_the_default_comes_first() -> None:
    spec = specification(56, 56)
    found = candidates(Task(spec), MACHINE)
    assert found[0] == spec
    assert len(set(found)) == len(found) > 4
    assert {candidate.family for candidate in found} == {"convolution", "winograd"}
    assert {candidate.macs for candidate in found} == {56 * 56 * 64 * 64 * 9}
    assert all(candidate.family == "convolution" for candidate in DirectFamily().candidates(Task(spec), MACHINE))


def test_another_candidate_must_be_clearly_better() -> None:
    task = Task(specification(56, 56))
    options = candidates(task, MACHINE)
    assert choose([task, task], MACHINE, "auto", Given(3)) == {task: options[3]}
    assert choose([task], MACHINE, "auto", Given(3, 0.97)) == {task: options[0]}


def test_layers_of_different_zeros_are_chosen_for_by_themselves() -> None:
    """What is known of the zeros is part of what a choice is made for; the code for both may be the same."""
    dense = Task(specification(56, 56))
    sparse = replace(dense, sparsity=("blocks", 3))
    cost = Given(0)
    assert choose([dense, sparse, dense], MACHINE, "off", cost) == {dense: dense.spec, sparse: dense.spec}
    assert cost.asked == 2


def test_families_have_names_of_their_own() -> None:
    """Settings go by them."""
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    assert {name for allowed in WINOGRAD.values() for name in allowed} <= set(names)


def test_settings_of_winograd() -> None:
    task = Task(specification(56, 56))
    assert choose([task], MACHINE, "auto", None)[task] == task.spec
    for setting, size in (("2x2", 2), ("4x4", 4)):
        for cost in (None, Given(0)):
            chosen = choose([task], MACHINE, setting, cost)[task]  # type: ignore[arg-type]
            assert isinstance(chosen, WinogradSpec) and chosen.size == size
    small = Task(specification(3, 3))
    assert choose([small], MACHINE, "4x4", None)[small] == small.spec


def test_the_model_prefers_fewer_products_and_fewer_weights() -> None:
    """Winograd where there are many pixels for each weight; the direct kernel where weights are most of the traffic."""
    model = AnalyticCost(MACHINE)
    large, small = Task(specification(56, 56)), Task(specification(4, 4, channels=512))
    assert choose([large], MACHINE, "auto", model)[large].family == "winograd"
    chosen = choose([small], MACHINE, "auto", model)[small]
    assert not isinstance(chosen, WinogradSpec) or chosen.size == 2


@pytest.mark.parametrize(("bandwidth", "family"), [(4000, "winograd"), (1500, "convolution")])
def test_slow_memory_decides_against_larger_weights(bandwidth: int, family: str) -> None:
    """512 channels on 4x4 pixels: fewer products than the direct kernel's, but nearly twice the weights."""
    machine = replace(find_target("rpi4"), memory_mb_s=bandwidth).machine
    layer = Task(fitted(specification(4, 4, lanes=4, channels=512), machine, 512 * 9))
    assert choose([layer], machine, "auto", AnalyticCost(machine))[layer].family == family


def test_cores_in_order_wait_for_memory() -> None:
    layer = specification(4, 4, channels=512)
    assert layer.cycles(replace(MACHINE, in_order=True)) > layer.cycles(MACHINE)


def test_choices_are_remembered(tmp_path: Path) -> None:
    task, cost = Task(specification(56, 56)), Given(3)
    first = choose([task], MACHINE, "auto", cost, ChoiceCache("llvm", 1, "given", tmp_path))
    again = choose([task], MACHINE, "auto", cost, ChoiceCache("llvm", 1, "given", tmp_path))
    assert first == again and cost.asked == 1
    for other in (("llvm -x", 1, "given"), ("llvm", 2, "given"), ("llvm", 1, "other")):
        choose([task], MACHINE, "auto", cost, ChoiceCache(*other, tmp_path))
    assert cost.asked == 4
    choose([Task(specification(28, 28))], MACHINE, "auto", cost, ChoiceCache("llvm", 1, "given", tmp_path))
    assert cost.asked == 5


def test_two_writers_keep_each_others_choices(tmp_path: Path) -> None:
    one, two = (ChoiceCache("llvm", 1, "given", tmp_path) for _ in range(2))
    left, right = Task(specification(56, 56)), Task(specification(28, 28))
    choose([left], MACHINE, "auto", Given(3), one)
    choose([right], MACHINE, "auto", Given(2), two)
    cost = Given(0)
    choose([left, right], MACHINE, "auto", cost, ChoiceCache("llvm", 1, "given", tmp_path))
    assert cost.asked == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99, "choices": {}}', '{"format": 1, "choices": 3}'])
def test_a_broken_cache_is_an_empty_one(tmp_path: Path, content: str) -> None:
    task, cost = Task(specification(56, 56)), Given(3)
    choose([task], MACHINE, "auto", cost, ChoiceCache("llvm", 1, "given", tmp_path))
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    choose([task], MACHINE, "auto", cost, ChoiceCache("llvm", 1, "given", tmp_path))
    assert cost.asked == 2
    assert json.loads(file.read_text())["format"] == 1


def test_an_index_that_fits_no_candidate_is_not_used(tmp_path: Path) -> None:
    task, cost = Task(specification(56, 56)), Given(3)
    choose([task], MACHINE, "auto", cost, ChoiceCache("llvm", 1, "given", tmp_path))
    (file,) = tmp_path.iterdir()
    record = json.loads(file.read_text())
    record["choices"] = {key: 1000 for key in record["choices"]}
    file.write_text(json.dumps(record))
    choose([task], MACHINE, "auto", cost, ChoiceCache("llvm", 1, "given", tmp_path))
    assert cost.asked == 2


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    task = Task(specification(56, 56))
    chosen = choose([task], MACHINE, "auto", Given(3), ChoiceCache("llvm", 1, "given", blocked / "folder"))
    assert chosen[task] == candidates(task, MACHINE)[3]


def test_choosing_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every candidate is built and timed once; a second compile asks the cache alone and computes the same bits."""
    monkeypatch.setattr(kept_file, "cache_folder", lambda: tmp_path)
    calls: list[int] = []
    original = HereTimes.__call__

    def counted(self: HereTimes, layers: Sequence[Sequence[tirx.PrimFunc]]) -> list[list[float]]:
        times = original(self, layers)
        assert all(0 < time < 60 for row in times for time in row)
        calls.append(len(layers))
        return times

    monkeypatch.setattr(HereTimes, "__call__", counted)
    torch.manual_seed(0)
    module = nn.Sequential(*[nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()] * 2, nn.Conv2d(16, 20, 1)).eval()
    x = torch.randn(1, 16, 12, 12)
    first, second = (compile(module, (x,), choose="time").run(x) for _ in range(2))
    assert len(calls) == 1 and torch.equal(first, second)
    torch.testing.assert_close(first, module(x).detach(), rtol=0, atol=1e-5 * float(first.abs().max()))


def test_a_foreign_target_is_judged_by_the_model() -> None:
    module, x = nn.Conv2d(16, 16, 3, padding=1).eval(), (torch.randn(1, 16, 12, 12),)
    assert compile(module, x, "rpi4", choose="time").target.name == "rpi4"

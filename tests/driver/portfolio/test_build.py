"""Making portfolios: from levels, programs and degrees; exact, ordered, shared, and whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import reconvene
from reconvene.backends.built import load_bundle
from reconvene.driver.cli.command_line import main
from reconvene.driver.portfolio.build import PAGE, Options, build_portfolio
from reconvene.driver.portfolio.manifest import VARIANTS, open_portfolio
from reconvene.driver.portfolio.sources import Source, levels_sources, program_sources, pruned_sources
from reconvene.driver.training.levels import Ladder, train_levels
from reconvene.driver.training.presets import Preset
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule
from reconvene.frontend.program_file import load_program, save_program
from tests.driver.training.test_loop import SHAPE, images, network
from tests.support.stateful import STATEFUL, frames
from tests.support.tools import needs

INPUTS = (torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)),)
ONE = Options(repeat=2, compile={"choose": "default"})


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "levels"
    preset = Preset(epochs=1, batch=8, rate=0.05, augment="none")
    list(train_levels(network(), INPUTS, images(), images(32, 1), preset, Ladder(levels=2, share=0.8), folder))
    return folder


def test_levels_become_variants_that_compute_the_same(levels: Path, tmp_path: Path) -> None:
    made = build_portfolio(levels_sources(levels), tmp_path / "p", "noise", Options(images=images(32, 1), repeat=2))
    assert {variant.name for variant in made.variants} == {"level-00", "level-01", "level-02"}
    assert [v.macs for v in made.variants] == sorted((v.macs for v in made.variants), reverse=True)
    dense, _, smallest = made.variants
    assert smallest.parameters < dense.parameters and smallest.macs < dense.macs and smallest.bytes < dense.bytes
    for variant in made.variants:
        sparse, _ = load_program(levels / variant.name / "model.pt2")
        x = INPUTS[0][:1]
        shrunk, _ = load_program(tmp_path / "p" / VARIANTS / variant.name / "model.pt2")
        compiled = load_bundle(tmp_path / "p" / VARIANTS / variant.name / "host").run(x)
        torch.testing.assert_close(shrunk(INPUTS[0]), sparse(INPUTS[0]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(compiled, sparse(x), rtol=1e-4, atol=1e-5)
        assert variant.accuracy == variant.source["sparse_accuracy"] and variant.source["test_images"] == 32
        assert variant.certificate is not None and variant.certificate["max_relative"] < 1e-6
        assert set(variant.latency_ms) == {"host"} and variant.latency_ms["host"] > 0
        assert variant.peak_memory_bytes > variant.bytes >= 4 * variant.parameters >= 4 * variant.nonzero
        assert variant.targets == ("host",)
    assert open_portfolio(tmp_path / "p") == made
    page = (tmp_path / "p" / PAGE).read_text()
    assert "level-02" in page and "on the front" in page and 'src="http' not in page


def test_zeros_that_kernels_skip_take_no_memory(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 4)).eval()
    inputs = (torch.randn(1, 64),)
    sparse = reconvene.prune(model, inputs, structure="row-block:8", sparsity=0.9).module
    sources = [
        Source(name, lambda module=module: (module, inputs), {})  # type: ignore[misc]
        for name, module in (("dense", capture(model, inputs)), ("sparse", sparse))
    ]
    made = build_portfolio(sources, tmp_path / "p", "zeros", Options(repeat=2))
    dense, zeros = sorted(made.variants, key=lambda variant: variant.name)
    assert dense.peak_memory_bytes > dense.bytes
    assert zeros.peak_memory_bytes < 0.5 * zeros.bytes


def test_one_network_pruned_to_several_degrees(tmp_path: Path) -> None:
    sources = pruned_sources(network(), INPUTS, (0.5, 0.0, 0.25), "magnitude")
    made = build_portfolio(sources, tmp_path / "p", "degrees", ONE)
    assert [variant.name for variant in made.variants] == ["dense", "magnitude-0.25", "magnitude-0.5"]
    assert all(variant.accuracy is None for variant in made.variants)
    widths = [load_program(tmp_path / "p" / VARIANTS / v.name / "model.pt2")[0] for v in made.variants]
    assert [module.get_parameter("0.weight").shape[0] for module in widths] == [8, 6, 4]


def test_equal_files_are_stored_once(tmp_path: Path) -> None:
    big = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 2))
    module = capture(big, (INPUTS[0][:1],))
    sources = [Source(name, lambda: (module, (INPUTS[0][:1],))) for name in ("one", "two")]
    build_portfolio(sources, tmp_path / "p", "twins", ONE)
    first, second = (tmp_path / "p" / VARIANTS / name / "model.pt2" for name in ("one", "two"))
    if first.read_bytes() == second.read_bytes():
        assert first.samefile(second)
    same = [
        path.samefile(tmp_path / "p" / VARIANTS / "two" / "host" / path.name)
        for path in (tmp_path / "p" / VARIANTS / "one" / "host").iterdir()
        if path.stat().st_size > 4096
        and path.read_bytes() == (tmp_path / "p" / VARIANTS / "two" / "host" / path.name).read_bytes()
    ]
    assert all(same)
    open_portfolio(tmp_path / "p")


def test_a_failure_leaves_the_portfolio_that_was_there(tmp_path: Path) -> None:
    made = build_portfolio(pruned_sources(network(), INPUTS, (0.0,), "magnitude"), tmp_path / "p", "old", ONE)
    other = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))

    def wider() -> tuple[CapturedModule, tuple[torch.Tensor, ...]]:
        return capture(other, INPUTS), INPUTS

    sources = [*pruned_sources(network(), INPUTS, (0.0,), "magnitude"), Source("wide", wider)]
    with pytest.raises(InputError, match="'wide' gives float32 1x5, but 'dense' gives float32 1x2"):
        build_portfolio(sources, tmp_path / "p", "new", ONE)
    assert open_portfolio(tmp_path / "p") == made
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@needs("aarch64-linux-gnu-g++", "qemu-aarch64", "llvm-mca")
def test_latency_on_a_board_is_modelled(tmp_path: Path) -> None:
    options = Options(targets=("host", "rpi4"), repeat=2, estimate=True, compile={"choose": "default"})
    made = build_portfolio(pruned_sources(network(), INPUTS, (0.0, 0.5), "magnitude"), tmp_path / "p", "both", options)
    for variant in made.variants:
        assert variant.targets == ("host", "rpi4") and set(variant.latency_ms) == {"host", "rpi4"}
        assert variant.source["latency"] == {"host": "measured", "rpi4": "modelled"}
    dense, half = made.variants
    assert half.latency_ms["rpi4"] < dense.latency_ms["rpi4"]


def test_what_makes_no_portfolio_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").touch()
    source = pruned_sources(network(), INPUTS, (0.0,), "magnitude")
    with pytest.raises(InputError, match="is no portfolio"):
        build_portfolio(source, tmp_path / "else", "x", ONE)
    with pytest.raises(InputError, match="at least one variant"):
        build_portfolio([], tmp_path / "p", "x", ONE)
    with pytest.raises(InputError, match="no name"):
        build_portfolio(source, tmp_path / "p", "../x", ONE)
    for options in (
        Options(targets=()),
        Options(targets=("host", "host")),
        Options(batch=0),
        Options(targets=("moon",)),
    ):
        with pytest.raises(InputError):
            build_portfolio(source, tmp_path / "p", "x", options)
    with pytest.raises(InputError, match="different names"):
        program_sources([Path("a/x.pt2"), Path("b/x.pt2")])
    with pytest.raises(InputError, match="twice"):
        pruned_sources(network(), INPUTS, (0.5, 0.5), "magnitude")
    with pytest.raises(InputError, match="reconvene gives layers new weights"):
        pruned_sources(network(), INPUTS, (0.5,), "reconvene")
    assert not (tmp_path / "p").exists()


def test_the_command_line(levels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["portfolio", str(levels), "-o", str(tmp_path / "p"), "--repeat", "2", "--choose", "default", "--json"])
        == 0
    )
    shown = json.loads(capsys.readouterr().out)
    assert {variant["name"] for variant in shown["variants"]} == {"level-00", "level-01", "level-02"}
    model = tmp_path / "net.pt2"
    save_program(network(), INPUTS, model)
    assert main(["portfolio", str(model), "-s", "0", "-s", "0.5", "--repeat", "2"]) == 0
    assert open_portfolio(tmp_path / "net-portfolio").name == "net-portfolio"
    for wrong in ([str(model)], [str(levels), "-s", "0.5"], [str(tmp_path)], [str(model), str(model), "-s", "0.5"]):
        assert main(["portfolio", *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_network_with_state_is_no_variant(tmp_path: Path) -> None:
    module, inputs = capture(STATEFUL["streaming"](), tuple(frames(1))), tuple(frames(1))
    with pytest.raises(InputError, match="'stream' keeps 'cache' from one call to the next"):
        build_portfolio([Source("stream", lambda: (module, inputs))], tmp_path / "p", "streams", ONE)
    assert not (tmp_path / "p").exists()

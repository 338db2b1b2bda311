"""One network in several types, side by side: what is built for which target, what it loses, and which are chosen."""

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
from reconvene.driver.portfolio.manifest import VARIANTS, Portfolio, open_portfolio
from reconvene.driver.portfolio.page import front
from reconvene.driver.portfolio.sources import program_sources, pruned_sources
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.program_file import load_program, save_program

pytest.importorskip("torchao", reason="pip install '.[int8]'")

X = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ONE = {"choose": "default"}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Portfolio:
    sources = pruned_sources(capture(network(), (X[:1],)), (X[:1],), (0,), "magnitude")
    options = Options(
        ("host", "rpi5"), repeat=1, types=("float32", "float16", "int8"), calibration=X, compile=ONE
    )  # fmt: skip
    return build_portfolio(sources, tmp_path_factory.mktemp("made") / "p", "types", options)


def test_every_network_is_there_in_every_type(made: Portfolio) -> None:
    assert [(variant.name, variant.dtype) for variant in made.variants] == [
        ("dense", "float32"), ("dense-fp16", "float16"), ("dense-int8", "int8"),
    ]  # fmt: skip
    exact, half, codes = made.variants
    assert exact.macs == half.macs == codes.macs and exact.parameters == half.parameters == codes.parameters
    assert half.bytes == exact.bytes / 2 and codes.bytes < 0.4 * exact.bytes
    assert open_portfolio(made.folder) == made


def test_only_targets_that_compute_in_a_type_have_it(made: Portfolio) -> None:
    targets = {variant.dtype: variant.targets for variant in made.variants}
    assert targets == {"float32": ("host", "rpi5"), "float16": ("rpi5",), "int8": ("host", "rpi5")}
    assert {variant.name: "host" in variant.latency_ms for variant in made.variants} == {
        variant.name: variant.dtype != "float16" for variant in made.variants
    }
    assert [variant.dtype for variant in made.built_for("host").variants] == ["float32", "int8"]
    assert made.built_for("rpi5") == made == made.built_for("rpi4")


def test_a_quantised_variant_is_what_it_says_and_tells_its_loss(made: Portfolio) -> None:
    for variant in made.variants:
        loss = variant.source["loss"]
        assert (loss is None) == (variant.dtype != "int8") and bool(variant.loss) == (variant.dtype == "int8")
        if loss is None:
            continue
        assert loss["examples"] == 32 and variant.loss == f"{loss['decibels']:.1f} dB, {loss['agreement']:.1%} alike"
        model, _ = load_program(made.folder / VARIANTS / variant.name / "model.pt2")
        exact, _ = load_program(made.folder / VARIANTS / variant.name.removesuffix("-int8") / "model.pt2")
        noise = (model(X) - exact(X)).square().sum() / exact(X).square().sum()
        assert float(-10 * noise.log10()) == pytest.approx(loss["decibels"], abs=0.01)
        compiled = torch.as_tensor(load_bundle(made.folder / VARIANTS / variant.name / "host").run(X[:1]))
        torch.testing.assert_close(compiled, model(X[:1]), rtol=0, atol=0.02 * float(model(X[:1]).abs().max()))


def test_pages_have_a_type_where_there_are_several(made: Portfolio) -> None:
    page = (made.folder / PAGE).read_text()
    assert "loss by rounding" in page and made.variants[2].loss in page
    assert front(made.variants, "host") == ()  # Nobody measured how often they are right.


def test_a_network_that_was_quantised_before_stands_beside_others(tmp_path: Path) -> None:
    save_program(capture(network(), (X[:1],)), (X[:1],), tmp_path / "exact.pt2")
    reconvene.quantize(network(), X).save(tmp_path / "codes.pt2")
    sources = program_sources([tmp_path / "exact.pt2", tmp_path / "codes.pt2"])
    made = build_portfolio(sources, tmp_path / "p", "both", Options(repeat=1, compile=ONE))
    exact, codes = made.variants
    assert (exact.dtype, codes.dtype) == ("float32", "int8") and exact.macs == codes.macs
    assert codes.parameters == exact.parameters and codes.certificate is None and codes.loss == ""


def test_variants_that_would_be_called_alike_are_refused(tmp_path: Path) -> None:
    save_program(capture(network(), (X[:1],)), (X[:1],), tmp_path / "net.pt2")
    reconvene.quantize(network(), X).save(tmp_path / "net-int8.pt2")  # As `reconvene quantize net.pt2` calls it.
    sources = program_sources([tmp_path / "net-int8.pt2", tmp_path / "net.pt2"])
    options = Options(repeat=1, types=("float32", "int8"), calibration=X, compile={**ONE, "check": False})
    with pytest.raises(InputError, match="two variants are called 'net-int8', one of them 'net' in int8; rename"):
        build_portfolio(sources, tmp_path / "p", "alike", options)
    assert not (tmp_path / "p").exists()


def test_float16_of_networks_that_are_all_quantised_is_refused(tmp_path: Path) -> None:
    reconvene.quantize(network(), X).save(tmp_path / "codes.pt2")
    options = Options(("rpi5",), repeat=1, types=("float32", "float16"), compile={**ONE, "check": False})
    with pytest.raises(
        InputError, match=r"every network is quantised already, .* nothing to compute in float16; leave"
    ):
        build_portfolio(program_sources([tmp_path / "codes.pt2"]), tmp_path / "p", "codes", options)
    assert not (tmp_path / "p").exists()


WRONG = {
    "none": (("bfloat16",), X, "a variant cannot be computed in 'bfloat16'; choose float32, float16, int8"),
    "twice": (("int8", "int8"), X, "name at least one type, and each once"),
    "target": (("float16",), X, "none of host, rpi4 computes in float16; leave that type out"),
    "ranges": (("int8",), None, "ranges for int8 are found on calibration inputs, and there are none"),
}


@pytest.mark.parametrize(("types", "calibration", "message"), WRONG.values(), ids=WRONG)
def test_types_that_cannot_be_are_refused(
    types: tuple[str, ...], calibration: torch.Tensor | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconvene.backends.machines.targets.Target.has_half_floats", False)
    with pytest.raises(InputError, match=message):
        Options(("host", "rpi4"), types=types, calibration=calibration).check()


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_program(capture(network(), (X[:1],)), (X[:1],), tmp_path / "net.pt2")
    line = ["portfolio", str(tmp_path / "net.pt2"), "-s", "0", "--dtype", "float32", "--dtype", "int8"]
    assert main([*line, "-o", str(tmp_path / "p")]) == 2
    assert "ranges for int8 are found on calibration inputs" in capsys.readouterr().err
    assert main([*line, "--calibration", "noise", "--repeat", "1", "-o", str(tmp_path / "p"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["variants"]
    assert [(each["name"], each["source"]["dtype"]) for each in told] == [("dense", "float32"), ("dense-int8", "int8")]
    assert main([*line[:4], "--calibration", "noise"]) == 2
    assert "--calibration has no meaning without --dtype int8" in capsys.readouterr().err

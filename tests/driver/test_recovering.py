"""`prune(..., recover=...)`: what comes of it, what is told, and what is refused before anything is captured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import reconvene
from reconvene.driver import api
from reconvene.driver.cli.command_line import main
from reconvene.frontend.program_file import load_program
from reconvene.passes.recovery.least_squares import LeastSquares
from reconvene.passes.recovery.synthetic import Synthetic

IMAGES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
QUICK = Synthetic(images=16, steps=2, deviation=1.0)
NOISE = Synthetic("noise", images=16, deviation=1.0)

NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 5),
    ).eval()
"""


def net() -> nn.Module:
    namespace: dict[str, Any] = {}
    exec(NET, namespace)
    made: nn.Module = namespace["net"]()
    return made


def lost(model: nn.Module, result: reconvene.Result) -> float:
    """How far the outputs are from those before, on images that nothing was solved on."""
    images = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return float((result.module(images) - model(images)).norm())


@pytest.mark.parametrize("calibration", [IMAGES, (IMAGES,), [IMAGES[:6], IMAGES[6:]], QUICK, NOISE])
def test_outputs_are_nearer_to_those_before(calibration: Any) -> None:
    model = net()
    plain = reconvene.prune(model, (IMAGES[:1],), sparsity=0.25)
    result = reconvene.prune(model, (IMAGES[:1],), sparsity=0.25, recover="least-squares", calibration=calibration)
    assert lost(model, result) < 0.8 * lost(model, plain)
    assert result.report.after == plain.report.after and result.certificate.max_relative < 1e-6
    assert result.recovery is not None and plain.recovery is None
    assert [layer.name for layer in result.recovery.layers] == ["3.weight", "7.weight"]
    for layer in result.recovery.layers:
        assert layer.after < layer.before


def test_the_report_says_what_was_solved() -> None:
    result = reconvene.prune(net(), (IMAGES[:1],), sparsity=0.25, recover=LeastSquares(ridge=0.1), calibration=IMAGES)
    told = json.loads(result.report.to_json())
    assert told["recovery"]["calibration"] == "16 inputs that were given"
    assert [layer["name"] for layer in told["recovery"]["layers"]] == ["3.weight", "7.weight"]
    assert told["options"]["recover"] == {"ridge": 0.1, "statistics": "kept", "rows": 10.0}
    assert "recovery" in told["seconds"] and "2 layers were solved anew" in told["notes"][-1]
    page = result.report.to_html()
    assert "Layers that were solved anew" in page and "<code>7.weight</code>" in page
    plain = reconvene.prune(net(), (IMAGES[:1],), sparsity=0.25).report
    assert json.loads(plain.to_json())["recovery"] is None and "solved anew" not in plain.to_html()


def test_the_same_seed_gives_the_same_weights() -> None:
    results = [
        reconvene.prune(net(), (IMAGES[:1],), sparsity=0.25, recover="least-squares", calibration=QUICK, seed=seed)
        for seed in (0, 0, 1)
    ]
    first, again, other = (result.module.get_parameter("7.weight") for result in results)
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recover": "prayer"}, "no recovery 'prayer'; choose least-squares"),
        ({"calibration": IMAGES}, "no meaning for the method magnitude without recover='least-squares'"),
        ({"recover": "least-squares", "calibration": "dreams"}, "no synthetic inputs called 'dreams'"),
        ({"recover": "least-squares", "method": "reconvene"}, "nothing to recover; choose reinitialize='none'"),
        ({"recover": "least-squares", "fold_batch_norm": True}, "cannot be folded before recovery"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "capture_model", None)
    with pytest.raises(reconvene.InputError, match=message):
        reconvene.prune(net(), (IMAGES[:1],), **options)


def test_inherited_weights_of_reconvene_are_recovered() -> None:
    options: dict[str, Any] = {"reinitialize": "none", "profile": False, "minimum_channels": 1, "channel_multiple": 1}
    result = reconvene.prune(
        net(), (IMAGES[:1],), "reconvene", 0.5, recover="least-squares", calibration=IMAGES, **options
    )
    assert result.recovery is not None and result.recovery.layers


def test_a_model_whose_batch_holds_its_channels_is_recovered_with_that_batch() -> None:
    class Folded(nn.Module):
        """Joins the batch with the channels, which can go only where the batch is a number."""

        def __init__(self) -> None:
            super().__init__()
            self.make, self.read = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made = torch.relu(self.make(x))
            joined = made.reshape(-1, *made.shape[2:])
            return self.read(joined.reshape(-1, 8, *made.shape[2:]))

    result = reconvene.prune(Folded(), (IMAGES[:1],), recover="least-squares", calibration=IMAGES)
    assert result.recovery is not None and [layer.name for layer in result.recovery.layers] == ["read.weight"]


MODEL = ["net.py:net", "--input", "1x3x8x8", "-s", "0.25"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    np.save("images.npy", IMAGES.numpy())
    return tmp_path


def test_the_command_line_recovers_on_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prune", *MODEL, "--recover", "least-squares", "--calibration", "images.npy", "-o", "small.pt2", "--json"]
    assert main([*words, "--recover-set", "ridge=0.1"]) == 0
    told = json.loads(capsys.readouterr().out)["report"]
    assert told["recovery"]["calibration"] == "16 inputs that were given" and told["options"]["recover"]["ridge"] == 0.1
    wanted = reconvene.prune(net(), (IMAGES[:1],), sparsity=0.25, recover=LeastSquares(ridge=0.1), calibration=IMAGES)
    saved = load_program("small.pt2")[0]
    torch.testing.assert_close(saved.get_parameter("7.weight"), wanted.module.get_parameter("7.weight"))


def test_a_method_that_looks_at_inputs_is_given_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prune", *MODEL, "--method", "reconstruction", "--calibration", "images.npy", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)["report"]
    assert sum(group["got"] for group in told["groups"]) == 6 and told["recovery"] is None


def test_the_command_line_recovers_without_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prune", *MODEL, "--recover", "least-squares", "--recover-set", "images=4", "--recover-set", "steps=1"]
    assert main(words) == 0
    assert "4 synthetic inputs: drawn to match the stored statistics in 1 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recover", "prayer"], "no recovery 'prayer'"),
        (["--calibration", "images.npy"], "--calibration has no meaning without --recover"),
        (["--recover-set", "ridge=1"], "--recover-set has no meaning without --recover"),
        (
            ["--recover", "least-squares", "--calibration", "none.npy"],
            "no calibration inputs: no such file: 'none.npy'",
        ),
        (["--recover", "least-squares", "--calibration", "net.py"], "no calibration inputs: cannot read 'net.py'"),
        (["--recover", "least-squares", "--recover-set", "ridge"], "'ridge' is no setting"),
        (["--recover", "least-squares", "--recover-set", "luck=7"], "recovery has no setting 'luck'; it has ridge"),
        (["--recover", "least-squares", "--recover-set", "ridge=much"], "ridge is 'much'"),
        (["--recover", "least-squares", "--recover-set", "steps=0"], "steps is 0"),
        (
            ["--recover", "least-squares", "--calibration", "images.npy", "--recover-set", "steps=9"],
            "'steps' is for synthetic inputs, and 'images.npy' holds inputs",
        ),
    ],
)
def test_the_command_line_refuses_in_one_line(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prune", *MODEL, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert {path.name for path in folder.iterdir()} == {"net.py", "images.npy"}


def test_named_arrays_of_a_file_go_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("two.py").write_text(
        "import torch\nfrom torch import nn\n\nclass Two(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)\n\n    def forward(self, x, y):\n"
        "        return self.b(torch.relu(self.a(x))) + y\n"
    )
    np.savez("named.npz", y=np.zeros((9, 3), np.float32), x=np.random.default_rng(0).normal(size=(9, 4)))
    words = ["prune", "two.py:Two", "--input", "1x4", "--input", "1x3", "--recover", "least-squares"]
    assert main([*words, "--calibration", "named.npz"]) == 0
    assert "1 layer was solved anew on 9 inputs that were given" in capsys.readouterr().out

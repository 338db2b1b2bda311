"""Structures layer by layer: the weights against NumPy, the network against pruning by magnitude, and what cannot be solved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reconvene
from reconvene.driver.cli.command_line import main
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.program_file import load_program
from reconvene.passes.pruning.methods.layerwise import Layerwise
from reconvene.passes.recovery.layer_admm import LayerAdmm, nearest_of_structure
from reconvene.passes.recovery.patches import Rows
from reconvene.passes.recovery.ridge import Moments
from reconvene.passes.structures import LayerShape, find_structure

HOW = LayerAdmm(ridge=1e-9)
SHAPE = LayerShape(8, 8, (3, 3))


def layer(seed: int = 0) -> tuple[Moments, Tensor, Tensor, Tensor]:
    """Moments, old weights, and the rows themselves: inputs that depend on each other, as those of layers do."""
    generator = torch.Generator().manual_seed(seed)
    mixing = 0.3 * torch.randn(72, 72, generator=generator).double() + torch.eye(72).double()
    x = torch.randn(900, 72, generator=generator).double() @ mixing + 1
    old = torch.randn(1, 8, 72, generator=generator).double()
    y = x @ old[0].T + 0.5
    moments = Moments(1)
    moments.add(Rows(x[None], y))
    return moments, old, x, y


def test_what_stays_is_least_squares_on_what_stays() -> None:
    moments, old, x, y = layer()
    found = nearest_of_structure(moments, old, find_structure("unstructured"), 0.7, SHAPE, HOW)
    mask = found.mask.reshape(8, 72).numpy()
    centred, wanted = (x - x.mean(0)).numpy(), (y - y.mean(0)).numpy()
    for row in range(8):
        by_hand = np.linalg.lstsq(centred[:, mask[row]], wanted[:, row], rcond=None)[0]
        np.testing.assert_allclose(found.weight[0, row, torch.from_numpy(mask[row])].numpy(), by_hand, atol=1e-5)
    assert not bool(found.weight[0][~found.mask.reshape(8, 72)].any())
    torch.testing.assert_close(found.bias[0], y.mean(0) - found.weight[0] @ x.mean(0))


@pytest.mark.parametrize("name", ["unstructured", "row-block:4", "2:4", "pattern", "bcr:4x4", "unified:4x4"])
def test_admm_finds_better_weights_than_the_largest(name: str) -> None:
    structure = find_structure(name)
    moments, old, _, _ = layer()
    bias = torch.zeros(1, 8).double()
    found = nearest_of_structure(moments, old, structure, 0.6, SHAPE, HOW)
    weight = found.weight.reshape(8, 8, 3, 3)
    assert not structure.broken(weight.float())  # Values of a unified block differ in the last bits of float64.
    largest = structure.project(old.reshape(8, 8, 3, 3), 0.6).reshape(old.shape)
    assert moments.error(found.weight, found.bias) < 0.95 * moments.error(largest, bias)
    once = nearest_of_structure(moments, old, structure, 0.6, SHAPE, LayerAdmm(rho=(1e9,), iterations=1, ridge=1e-9))
    assert moments.error(found.weight, found.bias) <= moments.error(once.weight, once.bias)


class Net(nn.Module):
    """Convolutions of all kinds, a residual sum, and a layer whose weight has two readers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.grouped, self.deep = nn.Conv2d(8, 16, 3, groups=2, padding=1), nn.Conv2d(16, 16, 3, groups=16, padding=1)
        self.back, self.twice = nn.ConvTranspose2d(16, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        x = x + self.back(self.deep(self.grouped(x).relu()).relu())
        return self.last(self.twice(self.twice(x).relu()).relu().mean((2, 3)))


def images(count: int, seed: int) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def net() -> Net:
    torch.manual_seed(0)
    model = Net()
    for _ in range(20):
        model(images(32, 0))
    return model.eval()


def lost(model: nn.Module, module: nn.Module) -> float:
    others = images(64, 2)
    with torch.no_grad():
        wanted = model(others)
        return float((module(others) - wanted).norm() / (wanted - wanted.mean(0)).norm())


def test_a_network_is_nearer_to_itself_than_by_magnitude() -> None:
    model = net()
    options: dict[str, Any] = {"structure": {"*": "row-block:4"}, "sparsity": 0.6}
    result = reconvene.prune(model, (images(1, 0),), "layerwise", calibration=images(32, 1), **options)
    plain = reconvene.prune(model, (images(1, 0),), **options)
    assert lost(model, result.module) < 0.6 * lost(model, plain.module)
    asked = {layer.name: layer for layer in result.report.zeros if layer.asked}
    assert set(asked) == {"grouped.weight", "back.weight", "twice.weight"} == set(result.plan.masks)
    assert all(float((~mask).float().mean()) == pytest.approx(0.6, abs=0.02) for mask in result.plan.masks.values())
    assert result.certificate.max_relative < result.certificate.tolerance
    assert result.recovery is not None and "certificate" not in result.report.notes[-1]
    solved = {layer.name: layer for layer in result.recovery.layers}
    assert set(solved) == {"grouped.weight", "deep.weight", "back.weight", "last.weight"}
    assert all(entry.after < entry.before for name, entry in solved.items() if name != "last.weight")
    assert result.recovery.refusals == ("twice.weight: not solved anew, because its weight has 2 readers",)
    twice = result.module.get_parameter("twice.weight").detach()
    assert torch.equal(twice, find_structure("row-block:4").project(model.twice.weight.detach(), 0.6))
    assert torch.equal(result.module.get_parameter("first.weight"), model.first.weight)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_layers_have_shares_of_their_own(scope: Any) -> None:
    asked = {"grouped": "row-block:4@0.25", "*": "row-block:4"}
    result = reconvene.prune(
        net(),
        (images(1, 0),),
        "layerwise",
        0.7,
        structure=asked,
        scope=scope,
        calibration=images(8, 1),
        ignore=("twice",),
    )
    zeros = {name: float((~mask).float().mean()) for name, mask in result.plan.masks.items()}
    assert zeros == pytest.approx({"grouped.weight": 0.25, "back.weight": 0.7}, abs=0.02)
    assert result.plan.origin["structure"] == asked


def test_a_recurrent_layer_gets_the_nearest_weights() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.cell, self.last = nn.Linear(6, 8), nn.GRU(8, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.cell(self.embed(x))[0])

    torch.manual_seed(0)
    model, x = Recurrent().eval(), torch.randn(2, 5, 6)
    result = reconvene.prune(
        model, (x,), "layerwise", structure="row-block:4", sparsity=0.5, calibration=torch.randn(16, 5, 6)
    )
    weight = result.module.get_parameter("cell.weight_hh_l0").detach()
    assert torch.equal(weight, find_structure("row-block:4").project(model.cell.weight_hh_l0.detach(), 0.5))
    assert result.recovery is not None and [layer.name for layer in result.recovery.layers] == [
        "embed.weight",
        "last.weight",
    ]


def test_what_makes_no_sense() -> None:
    x = images(1, 0)
    with pytest.raises(InputError, match="makes zeros of a structure; name one"):
        reconvene.prune(net(), (x,), "layerwise")
    with pytest.raises(InputError, match=r"rho is \(0.1, 0.0\); give numbers above 0"):
        Layerwise().with_options({"rho": "0.1,0"})
    with pytest.raises(InputError, match="0 iterations do nothing"):
        Layerwise().with_options({"iterations": 0})
    with pytest.raises(InputError, match="give it calibration inputs"):
        from reconvene.passes.pruning.methods.base import Aim
        from reconvene.passes.pruning.scores import Evidence
        from reconvene.passes.pruning.structure_rules import structure_rules

        Layerwise().prune(reconvene.capture(net(), (x,)), Evidence((x,)), Aim(structures=structure_rules("2:4")))


def test_the_designer_prunes_and_the_client_trains(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the command line: without data, and then with the zeros kept."""
    from training_kills import write_images

    from tests.driver.verbs.test_train import short
    from tests.driver.verbs.test_train_zeros import NET, NET_CODE

    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "data", count=8)
    (tmp_path / "net.py").write_text(NET_CODE)
    line = ["prune", *NET, "--method", "layerwise", "--structure", "1:4", "--calibration", "noise", "-o", "small.pt2"]
    assert main([*line, "--recover-set", "images=8", "--set", "iterations=3"]) == 0
    assert main(["train", "small.pt2", *short(), "--keep-zeros", "-o", "run"]) == 0
    before, after = (load_program(path)[0].get_parameter("3.weight") for path in ("small.pt2", "run/model.pt2"))
    assert torch.equal(before == 0, after == 0) and not torch.equal(before, after)
    assert not find_structure("1:4").broken(after.detach())
    capsys.readouterr()
    assert main(["train", *NET, *short(), "--keep-zeros"]) == 2
    assert "has no weights that are zero" in capsys.readouterr().err
    assert main(["train", "small.pt2", *short(), "--keep-zeros", "--method", "admm"]) == 2
    assert "--keep-zeros has no meaning with the method admm" in capsys.readouterr().err
    assert main(["train", "small.pt2", *short(), "--keep-zeros", "--masks", "m.safetensors"]) == 2
    assert "--masks has no meaning with --keep-zeros" in capsys.readouterr().err

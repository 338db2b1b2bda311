"""What a model's own ``train()`` leaves as it is, a training leaves as it is: also from a file, and in the average."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reconvene.driver.training.loop import train
from reconvene.frontend.capture import capture
from reconvene.frontend.program_file import load_program, save_program
from tests.driver.training.test_loop import PRESET, SHAPE, images


class Frozen(nn.Module):
    """A backbone without gradients, whose normalisation stays in inference whatever the mode is."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)).eval()
        self.backbone.requires_grad_(False)
        self.head = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1))
        self.last = nn.Linear(8, 2)

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.head(self.backbone(x)).mean((2, 3)))


@pytest.mark.parametrize(
    "settings", [{}, {"optimizer": "adamw", "ema": 0.5, "weight_decay": 0.1}], ids=["sgd", "adamw"]
)
@pytest.mark.parametrize("from_file", [False, True])
def test_frozen_layers_stay_frozen(from_file: bool, settings: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(SHAPE)
    module = capture(Frozen(), (x,), ({0: torch.export.Dim.DYNAMIC},))
    if from_file:
        save_program(module, (x,), tmp_path / "model.pt2")
        module = load_program(tmp_path / "model.pt2")[0]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    done = train(module, images(), images(32, 1), PRESET.changed(settings), tmp_path / "run")
    after = done.module.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert {name for name in after if name.startswith("backbone")}.isdisjoint(changed)
    assert {"head.0.weight", "head.1.running_mean", "head.1.num_batches_tracked", "last.bias"} <= changed
    module.train()
    modes = {path: part.training for path, part in module.named_modules() if "1" in path or "3" in path}
    assert modes == {"backbone.1": False, "backbone.3": False, "head.1": True, "head.3": True}

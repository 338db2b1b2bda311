"""Peak memory by hand, and profiles of several models."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reconvene.driver.reports.profile import peak_activation_bytes, profile
from reconvene.frontend.capture import capture


def test_peak_memory_by_hand() -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            wide = torch.cat([x, x, x], 1)
            return torch.relu(wide).sum(1, keepdim=True) + x

    x = torch.randn(1, 10)
    # While relu runs, x (40 bytes), its input and its output (120 each) are there.
    assert peak_activation_bytes(capture(Branches(), (x,)), (x,)) == 280


def test_views_and_weights_hold_nothing_of_their_own() -> None:
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.randn(1, 3, 4)
    assert peak_activation_bytes(capture(model, (x,)), (x,)) == 48 + 8


def test_profiles_side_by_side() -> None:
    x = torch.randn(2, 3, 8, 8)
    models = {str(width): (capture(nn.Conv2d(3, width, 3), (x,)), (x,)) for width in (4, 8)}
    found = profile(models, repeat=2)
    assert found["8"].size.parameters == 8 * 28 and found["8"].size.bytes == 4 * 8 * 28
    assert found["8"].size.macs == 2 * found["4"].size.macs
    assert found["4"].peak_bytes == 4 * 4 * 28 + 4 * (2 * 3 * 64 + 2 * 4 * 36)
    assert (found["4"].latency.repeats, found["4"].latency.batch) == (2, 2)

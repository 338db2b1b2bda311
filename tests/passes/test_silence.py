"""What does not go is told: zeros in one of several layers that make a channel, and compactions that remove nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import reconvene

IMAGE = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        first = self.first(image).relu()
        return self.last(first + self.second(first))


def zeroed(*names: str, channels: tuple[int, ...] = (1, 4)) -> nn.Module:
    torch.manual_seed(0)
    model = Residual()
    with torch.no_grad():
        for name in names:
            model.get_parameter(name)[list(channels)] = 0
    return model


def test_a_channel_that_is_zero_in_one_of_two_layers_is_a_refusal() -> None:
    result = reconvene.compact(zeroed("second.weight", "second.bias"), IMAGE)
    (refusal,) = result.report.refusals
    assert refusal.startswith(
        "first.weight: 2 channels that are zero in 'second.weight' stay: 'first.weight' makes them, too"
    )
    assert result.report.notes[0].startswith("nothing was removed: see what was refused")
    assert "nothing was removed" in repr(result)


def test_one_that_is_zero_in_both_goes_without_a_word() -> None:
    result = reconvene.compact(zeroed("first.weight", "first.bias", "second.weight", "second.bias"), IMAGE)
    assert result.report.refusals == () and not any("nothing was removed" in note for note in result.report.notes)
    assert [layer.channels_after for layer in result.report.layers] == [6, 6, 4]


def test_a_model_without_zeros_and_one_with_zeros_inside_of_channels_are_told_apart() -> None:
    assert "no channel of it is zero" in reconvene.compact(zeroed(), IMAGE).report.notes[0]
    model = zeroed()
    with torch.no_grad():
        model.get_parameter("second.weight")[:, :6] = 0
        model.get_parameter("second.weight")[0, 0, 0, 0] = 1  # So that no input channel goes unread.
    report = reconvene.compact(model, IMAGE).report
    assert report.notes[0].startswith("nothing was removed: its zeros lie inside of channels")


def test_classes_are_not_asked_for() -> None:
    report = reconvene.prune(Residual(), IMAGE, sparsity=0.5).report
    output = next(group for group in report.groups if group.name == "last.weight")
    assert (output.asked, output.got, output.reasons) == (0, 0, ())
    assert all(group.asked == group.got for group in report.groups)


@pytest.mark.parametrize("value", [float("nan"), complex(0, float("nan")), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: complex) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1)
            self.scale = nn.Parameter(torch.tensor([value, 1, 1, 1]))

        def forward(self, image: Tensor) -> Tensor:
            found = self.layer(image) * self.scale.reshape(-1, 1, 1)
            return found.abs() if found.is_complex() else found

    with pytest.raises(reconvene.InputError, match="'scale' holds 1 entries that are NaN or infinite"):
        reconvene.compact(Scaled(), IMAGE)

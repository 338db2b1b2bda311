"""Synthetic calibration inputs: of every kind, for every model, the same for the same seed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.recovery.dead_leaves import dead_leaves
from reconvene.passes.recovery.synthetic import Synthetic, synthetic_calibration
from reconvene.passes.recovery.views import crops

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network(normalised: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4) if normalised else nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()


def test_leaves_have_edges_and_the_moments_of_normalised_images() -> None:
    leaves = dead_leaves((6, 3, 48, 32), seed=1)
    assert leaves.shape == (6, 3, 48, 32) and leaves.dtype is torch.float32
    torch.testing.assert_close(leaves.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(leaves.std((0, 2, 3), correction=0), torch.ones(3))
    assert torch.equal(leaves, dead_leaves((6, 3, 48, 32), seed=1))
    assert not torch.equal(leaves, dead_leaves((6, 3, 48, 32), seed=2))
    # Neighbours are alike, as in photographs and not in noise, but for a few edges.
    steps = (leaves[..., 1:] - leaves[..., :-1]).abs()
    assert steps.median() < 0.1 * leaves.abs().median() and steps.max() > 1


@pytest.mark.parametrize(
    ("kind", "says"), [("noise", "noise"), ("leaves", "dead leaves"), ("synthetic", "dead leaves")]
)
def test_mean_and_deviation_are_those_asked_for(kind: str, says: str) -> None:
    graph = capture(network(normalised=False), (IMAGES,))
    made = synthetic_calibration(graph, (IMAGES,), Synthetic(kind, images=12, mean=3.0, deviation=0.5))
    ((images,),) = made.calls
    assert images.shape == (12, 3, 16, 16)
    assert images.mean().item() == pytest.approx(3, abs=0.05) and images.std().item() == pytest.approx(0.5, abs=0.05)
    assert made.description == f"12 synthetic inputs: {says}"


def test_the_best_kind_is_matched_where_statistics_are_stored() -> None:
    graph = capture(network(), (IMAGES,))
    made = synthetic_calibration(graph, (IMAGES,), Synthetic(images=4, steps=2))
    assert made.description == "4 synthetic inputs: drawn to match the stored statistics in 2 steps, in 4 views each"
    again = synthetic_calibration(graph, (IMAGES,), Synthetic("matched", images=4, steps=2))
    assert torch.equal(made.calls[0][0], again.calls[0][0])
    other = synthetic_calibration(graph, (IMAGES,), Synthetic(images=4, steps=2), seed=1)
    assert not torch.equal(made.calls[0][0], other.calls[0][0])


class Pairs(nn.Module):
    """Two images of an example, and a number that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
        return self.norm(left + right) * scale[:, :, None, None]


def test_views_are_parts_of_all_images_of_an_example_alike() -> None:
    graph, inputs = capture(network(), (IMAGES,)), (IMAGES, IMAGES, torch.ones(2, 1))
    one = synthetic_calibration(graph, (IMAGES,), Synthetic(images=4, steps=2, views=1))
    three = synthetic_calibration(graph, (IMAGES,), Synthetic(images=4, steps=2, views=3))
    assert len(one.calls) == 1 and one.description.endswith("in 2 steps")
    assert [call[0].shape for call in three.calls] == [(4, 3, 16, 16)] * 3
    assert torch.equal(one.calls[0][0], three.calls[0][0])
    assert len({call[0].sum().item() for call in three.calls}) == 3
    pairs = capture(Pairs().eval(), inputs)
    _, viewed = synthetic_calibration(pairs, inputs, Synthetic(images=4, steps=2, views=2)).calls
    first, _ = synthetic_calibration(pairs, inputs, Synthetic(images=4, steps=2, views=2)).calls
    for image, part in zip(first[:2], viewed[:2], strict=True):
        torch.testing.assert_close(part, crops(image, 4, seed=1))
    assert torch.equal(first[2], viewed[2])


def test_the_deviation_is_found_from_stored_statistics() -> None:
    """The normalisation remembers images of deviation 0.5."""
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)).eval()
    model[0].running_var.fill_(0.25)
    made = synthetic_calibration(capture(model, (IMAGES,)), (IMAGES,), Synthetic("leaves", images=8))
    assert made.calls[0][0].std().item() == pytest.approx(0.5, abs=0.01)


def test_a_fixed_batch_is_called_several_times() -> None:
    graph = capture(network(), (IMAGES,), ({},))
    made = synthetic_calibration(graph, (IMAGES,), Synthetic("leaves", images=5))
    assert [call[0].shape[0] for call in made.calls] == [2, 2, 2]
    assert not torch.equal(made.calls[0][0], made.calls[1][0])


class Words(nn.Module):
    """Reads ids of 7 words, and a scale of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.read = nn.Embedding(7, 6), nn.Linear(6, 3)

    def forward(self, words: dict[str, Tensor], scale: float) -> Tensor:
        return self.read(self.table(words["ids"]) * scale)


def test_whole_numbers_stay_within_what_the_model_takes() -> None:
    inputs: tuple[Any, ...] = ({"ids": torch.tensor([[0, 3, 1]])}, 2.0)
    made = synthetic_calibration(capture(Words().eval(), inputs), inputs, Synthetic(images=30))
    drawn = torch.cat([call[0]["ids"] for call in made.calls])
    assert drawn.shape == (30, 3) and set(drawn.unique().tolist()) == set(range(7))
    assert all(call[1] == 2.0 for call in made.calls) and made.description == "30 synthetic inputs: noise"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "dreams"}, "no synthetic inputs called 'dreams'"),
        ({"images": 0}, "images is 0"),
        ({"images": 2.5}, "images is 2.5"),
        ({"steps": True}, "steps is True"),
        ({"views": 0}, "views is 0"),
        ({"mean": float("inf")}, "mean is inf"),
        ({"deviation": 0}, "deviation is 0"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Synthetic(**options)


def test_kinds_that_a_model_does_not_allow_are_refused() -> None:
    with pytest.raises(InputError, match="no batch normalisation that stores any"):
        synthetic_calibration(capture(network(normalised=False), (IMAGES,)), (IMAGES,), Synthetic("matched"))
    rows = torch.randn(2, 4)
    with pytest.raises(InputError, match="none of the model's inputs is a batch of images"):
        synthetic_calibration(capture(nn.Linear(4, 2), (rows,)), (rows,), Synthetic("leaves"))

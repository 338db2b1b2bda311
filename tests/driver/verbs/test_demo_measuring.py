"""What the demo counts, and what it compares."""

from __future__ import annotations

import torch
from torch import nn

from reconvene.driver.verbs.demo_measuring import compiled_agrees, hits, scores


def test_hits_counts_labels_among_the_largest() -> None:
    outputs = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    labels = torch.tensor([0, 1])
    assert (hits(outputs, labels), hits(outputs, labels, 2)) == ("1/2", "2/2")


class Sums(nn.Module):
    """Two outputs of an image: its sum and less; refuses batches."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert len(images) == 1
        total = images.sum((1, 2, 3)) * self.sign
        return torch.stack([total, -total], 1)

    def run(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self(images)]


def test_images_are_compared_one_by_one() -> None:
    images = torch.tensor([1.0, 2.0, -1.0]).reshape(3, 1, 1, 1)
    outputs = {name: scores(Sums(), images) for name in ("dense", "compacted")}
    assert outputs["dense"].argmax(1).tolist() == [0, 0, 1]
    fact = compiled_agrees({"dense": Sums(), "compacted": Sums(-1)}, outputs, images)  # type: ignore[dict-item]
    assert (fact.before, fact.after) == ("3/3", "0/3")

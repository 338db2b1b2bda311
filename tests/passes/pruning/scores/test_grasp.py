"""GraSP against the Hessian worked out by hand.

For y = w2 w1 with w1 = 2, w2 = 3, and L = c y^2 / 2, c = 1 / 200^2: g = c (w1 w2^2, w1^2 w2) = c (18, 12) and
H = c ((w2^2, 2 w1 w2), (2 w1 w2, w1^2)) = c ((9, 12), (12, 4)), so H g = c^2 (306, 264) and w (H g) = c^2 (612, 792).
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reconvene.passes.pruning.scores.grasp import GRASP, TEMPERATURE

from .small import FIRST, SECOND, request

ONE = torch.ones(1, 1, dtype=torch.float64)


def chain() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.fill_(2)
        model[1].weight.fill_(3)
    return model


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.square().mean() / 2


@pytest.mark.parametrize("count", [1, 3])
def test_weight_times_hessian_times_gradient(count: int) -> None:
    scores = GRASP.weigh(request(chain(), (ONE,), batches=[((ONE,), ONE)] * count, loss=half_square))
    unit = TEMPERATURE**-4
    assert scores[FIRST].item() == pytest.approx(612 * unit)
    assert scores[SECOND].item() == pytest.approx(792 * unit)


def test_the_gradient_is_that_of_all_batches() -> None:
    # With inputs 1 and 2 the mean of g is c (1 + 4) / 2 (18, 12), and the mean of H is c (1 + 4) / 2 H(1).
    batches = [((ONE,), ONE), ((2 * ONE,), ONE)]
    scores = GRASP.weigh(request(chain(), (ONE,), batches=batches, loss=half_square))
    assert scores[FIRST].item() == pytest.approx(612 * TEMPERATURE**-4 * 2.5**2)


def test_the_sign_says_whether_the_gradient_would_grow() -> None:
    # L = -y has no curvature but between the two weights: H = ((0, -c), (-c, 0)), g = -c (3, 2), w (H g) = c^2 (4, 9).
    scores = GRASP.weigh(request(chain(), (ONE,), batches=[((ONE,), ONE)], loss=lambda y, t: -y.sum()))
    assert scores[FIRST].item() == pytest.approx(4 * TEMPERATURE**-2)
    assert scores[SECOND].item() == pytest.approx(9 * TEMPERATURE**-2)

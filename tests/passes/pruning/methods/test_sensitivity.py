"""Which layers the evaluator finds resilient, by hand."""

from __future__ import annotations

import pytest

from reconvene.frontend.base.errors import InputError
from reconvene.passes.pruning.methods.sensitivity import evaluate, shuffled
from reconvene.passes.pruning.weights import LayerSparsity

LAYERS = [
    LayerSparsity("small", 100, 20, True),
    LayerSparsity("middle", 100, 60, True),
    LayerSparsity("large", 1000, 700, True),
    LayerSparsity("head", 100, 100, False),
]


def test_the_mean_is_over_convolutions_whatever_their_size() -> None:
    found = evaluate(LAYERS, 0.65)
    assert found.threshold == pytest.approx((0.2 + 0.6 + 0.7) / 3)
    assert found.resilient == ("middle", "large")


def test_the_global_reading_compares_with_p() -> None:
    found = evaluate(LAYERS, 0.65, "global")
    assert (found.threshold, found.resilient) == (0.65, ("large",))


def test_linear_layers_count_when_asked() -> None:
    found = evaluate(LAYERS, 0.65, convolutions_only=False)
    assert found.threshold == pytest.approx(2.5 / 4)
    assert found.resilient == ("large", "head")


def test_a_layer_at_the_average_is_sensitive() -> None:
    assert evaluate([LayerSparsity("a", 10, 5, True), LayerSparsity("b", 20, 10, True)], 0.5).resilient == ()


def test_layers_pool_by_their_weights() -> None:
    assert evaluate(LAYERS, 0.65).pooled(["small", "large"]) == pytest.approx(720 / 1100)


def test_shuffling_deals_the_same_sparsities_to_other_layers() -> None:
    found = evaluate(LAYERS, 0.65)
    orders = {tuple(layer.sparsity for layer in shuffled(found, seed).layers) for seed in range(20)}
    assert len(orders) == 6 and all(sorted(order) == [0.2, 0.6, 0.7] for order in orders)
    assert shuffled(found, 1) == shuffled(found, 1)


def test_refusals() -> None:
    with pytest.raises(InputError, match="choose one of mean, global"):
        evaluate(LAYERS, 0.5, "median")
    with pytest.raises(InputError, match="layers='all'"):
        evaluate(LAYERS[3:], 0.5)

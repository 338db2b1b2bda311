"""The public functions: options that are checked, options that arrive, and a result that can be printed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import reconvene
from reconvene.driver import api

IMAGES = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5)
    )


def widths(result: reconvene.Result) -> list[int]:
    return [layer.channels_after for layer in result.report.layers]


def test_prune_carries_module_plan_report_and_certificate() -> None:
    model = net()
    result = reconvene.prune(model, (IMAGES,), sparsity=0.5)
    assert widths(result) == [8, 12, 5]
    assert result.module(IMAGES).shape == (1, 5)
    assert result.certificate.max_relative <= result.certificate.tolerance
    assert result.report.options["sparsity"] == 0.5 and result.report.title == "Sequential"
    assert sum(value.numel() for value in result.module.parameters()) == result.report.after.parameters
    assert sum(value.numel() for value in model.parameters()) == result.report.before.parameters
    assert len(repr(result)) < 1000


def test_channels_are_rounded_for_the_target_or_as_told() -> None:
    target: Any = SimpleNamespace(name="board", channel_multiple=8)
    result = reconvene.prune(net(), (IMAGES,), sparsity=0.6, target=target)
    assert widths(result) == [8, 16, 5]
    assert result.report.options["target"] == "board" and result.report.options["channel_multiple"] == 8
    assert widths(reconvene.prune(net(), (IMAGES,), sparsity=0.6, target=target, channel_multiple=1))[0] == 6


def test_compact_takes_masks() -> None:
    mask = torch.ones(24, dtype=torch.bool)
    mask[3:9] = False
    result = reconvene.compact(net(), (IMAGES,), {"2.weight": mask, "2.bias": mask})
    assert widths(result) == [16, 18, 5]
    assert result.report.options == {"action": "compact", "masks": ["2.bias", "2.weight"]}


def test_one_pattern_to_ignore_needs_no_list() -> None:
    result = reconvene.prune(net(), (IMAGES,), sparsity=0.5, ignore="2.weight")
    assert widths(result) == widths(reconvene.prune(net(), (IMAGES,), sparsity=0.5, ignore=("2.weight",))) == [8, 24, 5]


def test_structures_are_made_where_channels_are_not_chosen() -> None:
    model = net()
    result = reconvene.prune(model, (IMAGES,), structure={"2": "row-block:8"}, sparsity=0.75)
    first, second, last = result.report.zeros
    assert (first.structure, second.structure, last.structure) == (None, "row-block:8", None)
    assert second.asked == "row-block:8" and second.zeros == 0.75 * second.weights
    assert first.reason == last.reason == "no pattern of a structure matches it"
    assert result.report.options["structure"] == {"2": "row-block:8"}
    assert list(result.report.pictures) == ["2.weight"] and "pictures" not in result.report.to_dict()
    kept = {"2.weight": result.module.get_parameter("2.weight").detach() != 0}
    again = reconvene.compact(model, (IMAGES,), kept, structure="row-block:8")
    assert again.report.zeros[1].storage == second.storage
    with pytest.raises(reconvene.InputError, match=r"the zeros of '2.weight' are not 2:4"):
        reconvene.compact(model, (IMAGES,), kept, structure="2:4")
    plan = reconvene.compact(model, (IMAGES,), plan=result.plan)
    assert torch.equal(plan.module(IMAGES), result.module(IMAGES))


def test_a_captured_graph_brings_its_inputs() -> None:
    graph = reconvene.capture(net(), (IMAGES,))
    assert widths(reconvene.prune(graph, sparsity=0.5)) == [8, 12, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, "sparsity 1.0"),
        ({"sparsity": -0.5}, "sparsity -0.5"),
        ({"sparsity": float("nan")}, "sparsity nan"),
        ({"sparsity": float("inf")}, "sparsity inf"),
        ({"method": "astrology"}, r"'astrology'.*magnitude"),
        ({"target": "toaster"}, "toaster"),
        ({"channel_multiple": 0}, "channel multiple 0"),
        ({"minimum_channels": 0}, "minimum channels 0"),
        ({"structure": "moss"}, "no structure 'moss'"),
        ({"structure": {}}, "no structure was named"),
        ({"structure": "2:4", "sparsity": 0.9}, "sparsity 0.9 has no meaning with 2:4"),
        ({"structure": "2:4", "channel_multiple": 8}, "with a structure no channels are chosen"),
        ({"structure": "2:4", "target": "host"}, "with a structure no channels are chosen"),
        ({"structure": "row-block:4", "latency": 0.5}, "needs a target"),
        ({"structure": "2:4", "latency": 0.5, "target": "rpi4"}, "2:4 says its share of zeros itself"),
        ({"structure": "row-block:4", "timed_by": "cycles"}, "times by 'cycles' are for a latency that zeros"),
        ({"latency": 0.5, "target": "rpi4", "timed_by": "cycles"}, "times by 'cycles' are for a latency that zeros"),
        (
            {"structure": "row-block:4", "latency": 0.5, "target": "rpi4", "timed_by": "time"},
            "kernels for 'rpi4' do not run on this machine",
        ),
        (
            {"structure": "row-block:4", "latency": 0.5, "target": "rpi4", "minimum_channels": 2},
            "with a structure no channels are chosen",
        ),
        ({"structure": "2:4", "method": "reconvene"}, "reconvene removes channels alone"),
        ({"structure": "2:4", "recover": "least-squares"}, "weights that are solved anew are not zero any more"),
    ],
)
def test_options_are_checked_before_the_model_is_captured(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "capture_model", None)
    with pytest.raises(reconvene.InputError, match=message):
        reconvene.prune(net(), (IMAGES,), **options)


def test_a_model_without_inputs_is_refused() -> None:
    with pytest.raises(reconvene.InputError, match="example inputs"):
        reconvene.prune(net())


def test_compiled_equals_captured() -> None:
    graph = reconvene.capture(net(), (IMAGES,))
    built = reconvene.compile(graph, (IMAGES,))
    found = built.run(IMAGES)
    found = found[0] if isinstance(found, tuple) else found
    torch.testing.assert_close(torch.as_tensor(found), graph(IMAGES), rtol=1e-4, atol=1e-5)

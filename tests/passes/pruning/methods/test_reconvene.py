"""The method `reconvene` from end to end: widths by the rule, options, refusals, Python and command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_kills import write_images

import reconvene
from reconvene.driver.cli.command_line import main
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.networks.papers import network_for
from reconvene.passes.pruning.methods.reconvene import Reconvene
from reconvene.passes.pruning.scores import SCORES, synthetic_batches

IMAGES = torch.randn(1, 3, 32, 32)


def vgg(width: float = 0.125) -> nn.Module:
    torch.manual_seed(0)
    return network_for("vgg16", 10, 32, width).build()


BY_CHANNELS: dict[str, Any] = {"keep": "channels", "ends": "pruned", "channel_multiple": 1, "minimum_channels": 1}
"""As many channels as weights, with nothing rounded."""


def test_densities_are_kept_layer_by_layer() -> None:
    """With no threshold and nothing rounded, every layer keeps about the share of its weights that unstructured pruning
    left in it, and the network p of all of them."""
    model = vgg(0.5)
    result = reconvene.prune(
        model, (IMAGES,), method="reconvene", sparsity=0.9, profile=False, threshold="none", channel_multiple=1,
        minimum_channels=1,
    )  # fmt: skip
    assert result.sensitivity is not None
    for layer in result.sensitivity.layers[2:]:  # The first stays whole, and the second reads it.
        kept = result.module.get_parameter(layer.name).numel() / layer.weights
        assert kept == pytest.approx(1 - layer.sparsity, rel=0.25), layer.name
    assert result.report.after.parameters / result.report.before.parameters == pytest.approx(0.1, rel=0.1)


def test_no_layer_ends_narrow_unless_it_is_asked_for() -> None:
    found = reconvene.prune(vgg(0.25), (IMAGES,), method="reconvene", sparsity=0.98, profile=False, threshold="none")
    widths = [layer.channels_after for layer in found.report.layers[:-1]]
    assert min(widths) >= 8 and all(width % 8 == 0 for width in widths) and found.report.layers[0].channels_after == 16
    assert (found.report.options["minimum_channels"], found.report.options["channel_multiple"]) == (8, 8)
    asked = reconvene.prune(
        vgg(0.25), (IMAGES,), method="reconvene", sparsity=0.98, profile=False, minimum_channels=2, channel_multiple=2
    )
    assert min(layer.channels_after for layer in asked.report.layers[:-1]) < 8


def test_widths_follow_the_layers_sparsities() -> None:
    model = vgg()
    result = reconvene.prune(model, (IMAGES,), method="reconvene", sparsity=0.875, profile=False, **BY_CHANNELS)
    assert result.sensitivity is not None
    convolutions = [layer for layer in result.sensitivity.layers if layer.convolution]
    mean = sum(layer.sparsity for layer in convolutions) / len(convolutions)
    assert len(convolutions) == 13 and result.sensitivity.threshold == pytest.approx(mean)
    for layer in convolutions:
        weight = model.get_parameter(layer.name)
        share = layer.sparsity if layer.sparsity > mean else 0.0
        kept = result.module.get_parameter(layer.name).shape[0]
        assert kept == max(1, round((1 - share) * weight.shape[0]))
    assert sum(layer.zeros for layer in convolutions) > 0.8 * sum(layer.weights for layer in convolutions)
    assert result.module(IMAGES).shape == (1, 10)


def test_sensitive_layers_are_dense_again_and_touched_ones_are_new() -> None:
    model = vgg()
    result = reconvene.prune(model, (IMAGES,), method="reconvene", sparsity=0.875, profile=False)
    assert torch.equal(result.module.get_parameter("features.0.weight"), model.get_parameter("features.0.weight"))
    assert "fc" in result.reinitialized and "features.0" not in result.reinitialized
    inherited = reconvene.prune(
        model, (IMAGES,), method="reconvene", sparsity=0.875, profile=False, reinitialize="none", channels="lowest"
    )
    assert inherited.reinitialized == ()
    name = "features.40.weight"
    keep = inherited.plan.kept[name]
    expected = model.get_parameter(name)[keep[0]][:, keep[1]]
    assert torch.equal(inherited.module.get_parameter(name), expected)
    assert not torch.equal(result.module.get_parameter(name), expected)


def test_the_removal_is_certified_and_the_plan_repeats_it() -> None:
    model = vgg()
    result = reconvene.prune(model, (IMAGES,), method="reconvene", sparsity=0.9, profile=False)
    assert result.certificate.max_relative <= result.certificate.tolerance
    again = reconvene.compact(model, (IMAGES,), plan=result.plan)
    for name, value in result.module.named_parameters():
        assert again.module.get_parameter(name).shape == value.shape


@pytest.mark.parametrize("score", SCORES)
def test_every_score_gives_a_smaller_network(score: str) -> None:
    torch.manual_seed(0)
    model = network_for("resnet20", 10, 32, 0.5).build()
    batches = synthetic_batches(model, (IMAGES,), size=8)
    result = reconvene.prune(
        model, (IMAGES,), method="reconvene", sparsity=0.8, score=score, rounds=2, batches=batches, profile=False,
        threshold="none",
    )  # fmt: skip
    assert result.report.after.parameters < result.report.before.parameters
    assert result.report.options["score"] == score


def test_the_options_of_the_paper_s_open_points() -> None:
    model = vgg(0.125)
    sizes = {}
    for name, options in {
        "default": {}, "global": {"threshold": "global"}, "random": {"evaluator": "random"}, "inside": {"residual": "inside"},
        "multiple": {"channel_multiple": 8}, "none": {"threshold": "none"}, "density": {"keep": "density"},
    }.items():  # fmt: skip
        options = {**BY_CHANNELS, **options}
        result = reconvene.prune(model, (IMAGES,), method="reconvene", sparsity=0.9, profile=False, **options)
        sizes[name] = result.report.after.parameters
        if name == "multiple":
            widths = [layer.channels_after for layer in result.report.layers[:-1]]
            assert all(width % 8 == 0 for width in widths)
    assert sizes["global"] > sizes["default"]
    assert sizes["random"] != sizes["default"]
    assert sizes["inside"] == sizes["default"]
    assert sizes["multiple"] > sizes["default"] > sizes["none"]
    assert sizes["density"] > 1.5 * sizes["default"]


def test_any_captured_model_will_do() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(20, 64), nn.Linear(64, 64)
            self.gate, self.last = nn.Linear(20, 64), nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.second(torch.nn.functional.gelu(self.first(x)))
            return self.last(hidden * self.gate(x).sigmoid())

    model, x = Mixed(), torch.randn(2, 20)
    with pytest.raises(InputError, match="layers='all'"):
        reconvene.prune(model, (x,), method="reconvene", sparsity=0.8)
    program = torch.export.export(model, (x,))
    result = reconvene.prune(program, (x,), method="reconvene", sparsity=0.8, layers="all", threshold="global")
    assert result.report.after.parameters < result.report.before.parameters


def test_the_profile_is_part_of_the_report() -> None:
    result = reconvene.prune(vgg(0.125), (IMAGES,), method="reconvene", sparsity=0.9)
    assert [(row.engine, row.variant) for row in result.report.latency] == [("eager", "dense"), ("eager", "compacted")]
    assert any(fact.label.startswith("peak memory") for fact in result.report.facts)
    assert "resilient" in result.report.to_html()
    assert json.loads(result.report.to_json())["options"]["method"] == "reconvene"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresold": "mean"}, "no option 'thresold'.*threshold"),
        ({"threshold": "median"}, "no threshold 'median'.*none"),
        ({"keep": "weights"}, "no keep 'weights'.*density"),
        ({"ends": "x"}, "no ends 'x'"),
        ({"evaluator": "oracle"}, "no evaluator 'oracle'"),
        ({"reinitialize": "some"}, "no reinitialize 'some'"),
        ({"initializer": "x"}, "no initializer 'x'"),
        ({"layers": "x"}, "no layers 'x'"),
        ({"profile": "yes"}, "choose true or false"),
        ({"score": "snip"}, "give batches"),
        ({"scope": "global"}, "allocation"),
        ({"fold_batch_norm": True}, "allocation"),
    ],
)
def test_options_that_there_are_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        reconvene.prune(vgg(0.125), (IMAGES,), method="reconvene", sparsity=0.9, **options)


def test_other_methods_have_no_such_options() -> None:
    with pytest.raises(InputError, match="no option 'threshold'"):
        reconvene.prune(vgg(0.125), (IMAGES,), threshold="mean")
    assert Reconvene().score == "magnitude"


def test_from_untrained_to_trained_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "data", count=32)
    assert main([*LINE, "--width", "0.125", "--set", "profile=false", "-o", "small.pt2"]) == 0
    line = "train small.pt2 --preset smoke --set epochs=1 --set train_images=0 --set test_images=0 -o run --json"
    assert main(line.split()) == 0
    capsys.readouterr()
    assert reconvene.capture("run/model.pt2")(torch.randn(1, 3, 32, 32)).shape == (1, 10)


LINE = ["prune", "--method", "reconvene", "--model", "vgg16", "--dataset", "cifar10", "--sparsity", "0.875", "--json"]


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*LINE, "--score", "magnitude", "--width", "0.125", "--set", "profile=false"]) == 0
    report = json.loads(capsys.readouterr().out)["report"]
    assert report["after"]["parameters"] < 0.5 * report["before"]["parameters"]
    assert (tmp_path / "vgg16-pruned.pt2").is_file()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([*LINE, "--score", "snip", "--width", "0.125", "--data", "nowhere"], "no CIFAR-10"),
        ([*LINE, "--set", "threshold"], "NAME=VALUE"),
        ([*LINE, "--set", "treshold=mean"], "no option 'treshold'"),
        ([*LINE, "vgg16-cifar"], "one MODEL"),
        (["prune"], "one MODEL"),
        (["prune", "vgg16"], "with --dataset also vgg16"),
        (["prune", "vgg16-cifar", "--width", "0.5"], "--dataset"),
        (["prune", "vgg16-cifar", "--method", "snip"], "--dataset, or say --synthetic"),
        (["prune", "vgg16", "--dataset", "svhn"], "no data set"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(
    line: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(line) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_scores_on_synthetic_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = ["prune", "resnet20", "--dataset", "cifar10", "--width", "0.25", "--method", "snip", "--synthetic", "--json"]
    assert main(line) == 0

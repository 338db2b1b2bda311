"""Results and models as files, and back: what is read computes the same, and says the same."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import reconvene
from reconvene.driver.cli.command_line import main
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.data.facts import Colours, DataFacts, facts_of
from reconvene.frontend.program_file import save_program
from reconvene.frontend.stored_compute import Compute

NAMES = ("ape", "bee", "cat", "doe")
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_a_pruned_network_is_read_as_it_was_written(net: nn.Module, tmp_path: Path) -> None:
    result = reconvene.prune(net, IMAGES, sparsity=0.5)
    result.save(tmp_path / "small.pt2")
    stored = reconvene.load(tmp_path / "small.pt2")
    assert stored.example_inputs is not None and torch.equal(stored.example_inputs[0], IMAGES)
    assert torch.equal(stored.module(IMAGES), result.module(IMAGES))
    assert stored.certificate is not None and stored.certificate["max_relative"] == result.certificate.max_relative
    assert stored.compute == Compute(result.report.before.macs, result.report.after.macs)


def test_weights_that_were_changed_have_no_certificate(net: nn.Module, tmp_path: Path) -> None:
    result = reconvene.compact(net, IMAGES)
    with torch.no_grad():
        next(result.module.parameters())[0, 0, 0, 0] += 1
    result.save(tmp_path / "changed.pt2")
    stored = reconvene.load(tmp_path / "changed.pt2")
    assert stored.certificate is None
    assert torch.equal(stored.module(IMAGES), result.module(IMAGES))


def test_classes_and_colours_go_all_the_way(net: nn.Module, tmp_path: Path) -> None:
    names, mean, std = NAMES, (0.5, 0.4, 0.25), (0.25, 0.5, 1.0)
    reconvene.save(net, IMAGES, tmp_path / "net.pt2", classes=names, mean=mean, std=std)
    result = reconvene.prune(str(tmp_path / "net.pt2"), sparsity=0.5)
    result.save(tmp_path / "small.pt2")
    found = facts_of(reconvene.load(tmp_path / "small.pt2").module)
    assert found is not None and found.classes == names and found.colours == Colours(mean, std)
    reconvene.save(str(tmp_path / "small.pt2"), None, tmp_path / "again.pt2")
    assert reconvene.load(tmp_path / "again.pt2").data == found


def test_colours_may_be_arrays_or_tensors_and_stay_where_classes_are_named_anew(net: nn.Module, tmp_path: Path) -> None:
    path, again = tmp_path / "net.pt2", tmp_path / "again.pt2"
    for kind in (np.float32, torch.tensor):
        colours = {"mean": kind([0.5, 0.25, 0.125]), "std": kind([0.5, 1.0, 2.0])}
        reconvene.save(net, IMAGES, path, classes=(name for name in NAMES), **colours)
        found = reconvene.load(path).data
        assert found is not None and found.colours == Colours((0.5, 0.25, 0.125), (0.5, 1.0, 2.0))
    reconvene.save(path, None, again, classes=NAMES[::-1])
    assert reconvene.load(again).data == replace(found, classes=NAMES[::-1])


def test_a_copy_of_a_file_says_what_the_file_did(
    net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("\n".join(NAMES))
    small = reconvene.prune(net, IMAGES, sparsity=0.5)
    notes: dict[str, Any] = {
        "certificate": asdict(small.certificate),
        "compute": Compute(40, 10),
        "origin": {"method": "any"},
    }
    facts = DataFacts(("w", "x", "y", "z"), Colours((0.1, 0.2, 0.3), (0.5,) * 3), 0.25)
    save_program(small.module, small.example_inputs, "small.pt2", data=facts, **notes)
    first = reconvene.load("small.pt2")
    reconvene.save("small.pt2", None, "plain.pt2")
    reconvene.save(Path("small.pt2"), None, "named.pt2", classes=NAMES)
    assert main(["capture", "small.pt2", "-o", "copied.pt2"]) == 0
    assert main(["capture", "small.pt2", "--classes", "names.txt", "-o", "recorded.pt2"]) == 0
    for name, classes in (("plain", facts.classes), ("named", NAMES), ("copied", facts.classes), ("recorded", NAMES)):
        found = reconvene.load(f"{name}.pt2")
        assert (found.certificate, found.compute, found.origin) == (first.certificate, first.compute, first.origin)
        assert found.data == replace(facts, classes=classes) and found.certificate is not None
    assert main(["capture", "small.pt2", "--image-bytes", "NHWC", "-o", "bytes.pt2"]) == 0
    found = reconvene.load("bytes.pt2")
    assert found.certificate is None and (found.compute, found.origin) == (first.compute, first.origin)


def test_what_is_pruned_twice_is_compared_with_the_dense_network(
    net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    once = reconvene.prune(net, IMAGES, sparsity=0.5)
    once.save("once.pt2")
    assert main(["prune", "once.pt2", "-s", "0.5", "-o", "verb.pt2"]) == 0
    for source in ("once.pt2", once.module, reconvene.load("once.pt2").module):
        twice = reconvene.prune(source, sparsity=0.5)
        twice.save("twice.pt2")
        wanted = Compute(once.report.before.macs, twice.report.after.macs)
        assert reconvene.load("twice.pt2").compute == reconvene.load("verb.pt2").compute == wanted
        reconvene.compact(twice.module).save("again.pt2")
        assert reconvene.load("again.pt2").compute == wanted


def test_a_lone_tensor_and_keywords_are_inputs(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def forward(self, image: torch.Tensor, *, factor: torch.Tensor) -> torch.Tensor:
            return image * factor

    reconvene.save(Scaled(), {"factor": torch.tensor(3.0), "image": IMAGES}, tmp_path / "scaled.pt2")
    stored = reconvene.load(tmp_path / "scaled.pt2")
    assert torch.equal(stored.module(image=IMAGES, factor=torch.tensor(3.0)), IMAGES * 3)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"mean": [0.5] * 3, "std": [0.5] * 3}, "name its classes"),
        ({"classes": ["a", "b"], "mean": [0.5] * 3}, "give both"),
        ({"classes": ["a", "a", "b", "c"]}, "of different names"),
        ({"classes": ["a", "b"]}, "classes names 2 classes, and the model gives 4; name each of them"),
        ({"classes": "abcd"}, "classes is one text, 'abcd'; give a list of names"),
        ({"classes": 4}, "cannot be recorded"),
        ({"classes": NAMES, "mean": [0.5], "std": [0.5]}, "mean is .* give three numbers, one for each"),
        ({"classes": NAMES, "mean": [0.5] * 3, "std": [0.0] * 3}, "std .* deviations above 0"),
        ({"classes": NAMES, "mean": [123.7] * 3, "std": [58.0] * 3}, "mean .* is out of range; give shares of 255"),
        ({"classes": NAMES, "mean": [0.5] * 3, "std": [float("inf")] * 3}, "std .* is out of range"),
        ({"classes": NAMES, "mean": "grey", "std": [0.5] * 3}, "mean is 'grey'; give three numbers"),
    ],
)
def test_what_makes_no_sense_is_one_line(net: nn.Module, tmp_path: Path, said: dict[str, Any], message: str) -> None:
    with pytest.raises(reconvene.InputError, match=message) as caught:
        reconvene.save(net, IMAGES, tmp_path / "net.pt2", **said)
    assert "\n" not in str(caught.value) and not (tmp_path / "net.pt2").exists()


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(reconvene.InputError, match=r"is a folder; a bundle is opened with reconvene\.Built\.open"):
        reconvene.load(tmp_path)


@pytest.mark.parametrize("given", [3, None, {}, ["a.pt2"]])
def test_what_is_no_path_is_one_line(given: Any) -> None:
    with pytest.raises(InputError, match=f"a {type(given).__name__} is no path of one"):
        reconvene.load(given)

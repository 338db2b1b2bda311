"""Structures of zeros on the command line: asked for, checked, reported, and refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reconvene.driver.cli.command_line import main
from reconvene.frontend.program_file import load_program
from reconvene.passes.pruning.structure_plan import PlannedLayer, StructurePlan
from reconvene.passes.structures import find_structure, recognise

from .test_command_line import MODEL, answered, folder, refused

__all__ = ["folder"]


def test_prune_makes_structures_that_last_in_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        "--structure",
        "pattern:4",
        "--structure",
        "fc=row-block:5",
        "-s",
        "0.6",
        "-o",
        "s.pt2",
        "--report",
        "s.html",
    ]
    report = answered(capsys, "prune", *MODEL, *asked)["report"]
    assert {layer["name"]: layer["asked"] for layer in report["zeros"]} == {
        "a.weight": None, "b.weight": "pattern:4", "fc.weight": "row-block:5",
    }  # fmt: skip
    assert [layer["structure"] for layer in report["zeros"][:2]] == [None, "pattern:4"]
    assert report["options"]["structure"] == {"fc": "row-block:5", "*": "pattern:4"}
    module, _ = load_program(folder / "s.pt2")
    assert str(recognise(module.get_parameter("b.weight").detach())) == "pattern:4"
    page = (folder / "s.html").read_text()
    assert (
        "Zeros inside of layers" in page and 'alt="mask of b.weight"' in page and 'alt="mask of a.weight"' not in page
    )

    # What it was told there, another call finds out by itself, and a claim is checked.
    assert main(["compact", "s.pt2", "--structure", "pattern:4,row-block:5", "-o", "again.pt2"]) == 0
    out = capsys.readouterr().out
    assert "pattern:4" in out and "smallest format" in out
    line = refused(capsys, "compact", "s.pt2", "--structure", "b=2:4", "-o", "no.pt2")
    assert "the zeros of 'b.weight' are not 2:4: filter" in line and not (folder / "no.pt2").exists()


def test_shares_by_layer(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--structure", "b=row-block:4@0.75", "--structure", "fc=unstructured", "-s", "0.5"]
    report = answered(capsys, "prune", *MODEL, *asked)["report"]
    given = {layer["name"]: layer for layer in report["zeros"]}
    assert (given["b.weight"]["asked"], given["fc.weight"]["asked"]) == ("row-block:4@0.75", "unstructured")
    shares = [given[name]["zeros"] / given[name]["weights"] for name in ("b.weight", "fc.weight")]
    assert shares == pytest.approx([0.75, 0.5], abs=0.02)
    assert report["options"]["structure"] == {"b": "row-block:4@0.75", "fc": "unstructured"}


PLAN = StructurePlan(
    (
        PlannedLayer("a.weight", None, 0.0, 130.0, 130.0, "a first convolution"),
        PlannedLayer("b.weight", "row-block:4", 0.75, 200.0, 60.0, "the <smallest> block"),
        PlannedLayer("fc.weight", None, 0.0, 10.0, None, "the last layer"),
    ),
    "rpi4",
    "model",
)


def test_a_plan_says_what_layers_take(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    PLAN.save(folder / "plan.json")
    report = answered(capsys, "prune", *MODEL, "--structure", "plan.json", "--report", "s.html")["report"]
    assert {layer["name"]: layer["asked"] for layer in report["zeros"]} == {
        "a.weight": None, "b.weight": "row-block:4@0.75", "fc.weight": None,
    }  # fmt: skip
    assert [layer["reason"] for layer in report["structures"]["layers"]][1] == "the <smallest> block"
    page = (folder / "s.html").read_text()
    assert "Plan of structures" in page and "the &lt;smallest&gt; block" in page and "<smallest>" not in page
    assert "Expected time by layer and structure" in page and "Share of zeros by layer and structure" in page
    assert "Of 340 cycles that the layers take on rpi4 without zeros" in page and "200 cycles were expected" in page


def test_a_plan_without_times(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    StructurePlan((PlannedLayer("b.weight", "row-block:4", 0.75),)).save(folder / "plan.json")
    answered(capsys, "prune", *MODEL, "--structure", "plan.json", "--report", "s.html")
    page = (folder / "s.html").read_text()
    assert "Share of zeros by layer and structure" in page and "Expected time by layer" not in page


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--structure", "plan.json", "--structure", "b=2:4"], "the plan 'plan.json' says what every layer takes"),
        (["--structure", "plan.json", "-s", "0.9"], "sparsity 0.9 has no meaning with row-block:4@0.75"),
        (["--structure", "none.json"], "cannot read the plan 'none.json'"),
        (["--structure", "damaged.json"], "'damaged.json' is no plan of structures"),
        (["--structure", "b=plan.json"], "there is no structure 'plan.json'"),
        (["--structure", "dense.json"], "a plan in which not every layer stays dense"),
    ],
)
def test_plans_that_cannot_be_taken(
    more: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    PLAN.save(folder / "plan.json")
    StructurePlan((PlannedLayer("a.weight"),)).save(folder / "dense.json")
    (folder / "damaged.json").write_text("{}")
    assert message in refused(capsys, "prune", *MODEL, *more)


def test_a_person_is_told_what_stays_dense(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", *MODEL, "--structure", "row-block:4"]) == 0
    out = capsys.readouterr().out
    assert "stays dense: a.weight: a first convolution, unless its name is given" in out
    assert "stays dense: fc.weight: a last layer, such as the classifier, unless its name is given" in out


def test_compile_says_what_zeros_brought(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sparse = ["prune", *MODEL, "--structure", "b=row-block:8", "-s", "0.9", "-o", "s.pt2"]
    assert main(sparse) == 0
    capsys.readouterr()
    answer = answered(capsys, "compile", "s.pt2", "--report", "k.json", "-o", "bundle")
    layers = {layer["name"]: layer for layer in answer["kernels"]["layers"]}
    assert list(layers) == ["a.weight", "b.weight", "fc.weight"] and layers["a.weight"]["structure"] is None
    assert layers["b.weight"]["structure"] == "row-block:8" and layers["b.weight"]["dense_cost"] > 0
    assert json.loads((folder / "k.json").read_text()) == answer["kernels"]

    assert main(["compile", "s.pt2", "--report", "k.html", "-o", "bundle"]) == 0
    out = capsys.readouterr().out
    assert "Layers with zeros" in out and "b.weight" in out and "a.weight" not in out and "report k.html" in out
    page = (folder / "k.html").read_text()
    assert "row-block:8" in page and 'alt="mask of b.weight"' in page and "Cost in one pass" in page
    assert main(["compile", *MODEL, "-o", "dense"]) == 0
    assert "Layers with zeros" not in capsys.readouterr().out
    line = refused(capsys, "compile", "s.pt2", "--report", "k.txt", "-o", "no")
    assert line == "error: a report is .html or .json, not 'k.txt'" and not (folder / "no").exists()


def test_a_person_is_told_how_a_latency_was_reached(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        "prune", *MODEL, "--structure", "row-block:4", "--latency", "0.7", "--target", "rpi4",
    ]  # fmt: skip
    assert main([*asked, "--report", "s.html"]) == 0
    out, page = capsys.readouterr().out, (folder / "s.html").read_text()
    assert "Time, modelled: 0.7 of the dense one wanted" in out and "the network" in out
    assert "Wanted was 0.7" in page and "on rpi4" in page


def test_masks_that_are_not_what_they_are_said_to_be(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weight = torch.randn(8, 16, 3, 3)
    save_file({"b.weight": find_structure("2:4").mask(weight.abs(), 0)}, folder / "masks.safetensors")
    right = answered(capsys, "compact", *MODEL, "--masks", "masks.safetensors", "--structure", "2:4")
    assert json.dumps(right["report"]["zeros"]).count('"2:4"') == 1
    line = refused(capsys, "compact", *MODEL, "--masks", "masks.safetensors", "--structure", "row-block:4")
    assert line.startswith("error: the zeros of 'b.weight' are not row-block:4: filters 0 to 3, input channel")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune", *MODEL, "--structure", "moss"], "there is no structure 'moss'; there are unstructured, row-block:R"),
        (["compact", *MODEL, "--structure", "moss"], "there is no structure 'moss'"),
        (["prune", *MODEL, "--structure", "row-block:x"], "'row-block:x' is not spelled as row-block:R"),
        (["prune", *MODEL, "--structure", "b="], "'b=' names no structure for a pattern"),
        (["prune", *MODEL, "--structure", "2:4", "--structure", "1:4"], "two structures are for '*': 2:4 and 1:4"),
        (["prune", *MODEL, "--structure", "b=2:4@0.8"], "leave @0.8 out"),
        (["prune", *MODEL, "--structure", "row-block:4@0.8", "-s", "0.7"], "has no meaning with row-block:4@0.8"),
        (["compact", *MODEL, "--structure", "b=row-block:4@0.8"], "the zeros are there already"),
        (["prune", *MODEL, "--structure", "z=2:4"], "the pattern 'z' matches no layer"),
        (["prune", *MODEL, "--structure", "2:4", "-s", "0.8"], "sparsity 0.8 has no meaning with 2:4"),
        (["prune", *MODEL, "--structure", "row-block:7"], "b.weight: row-block:7: its 8 filters are no multiple of 7"),
        (["prune", *MODEL, "--structure", "2:4", "--target", "rpi4"], "--target has no meaning with --structure"),
        (["prune", *MODEL, "--structure", "2:4", "--minimum-channels", "2"], "--minimum-channels has no meaning"),
        (
            ["prune", *MODEL, "--structure", "2:4", "--latency", "0.5", "--target", "rpi4"],
            "2:4 says its share of zeros itself",
        ),
        (["prune", *MODEL, "--structure", "dot:4", "--latency", "0.5"], "a latency goal needs a target"),
        (
            ["prune", *MODEL, "--structure", "dot:4", "--timed-by", "cycles"],
            "--timed-by has no meaning without --latency",
        ),
        (
            ["prune", *MODEL, "--structure", "dot:4", "--latency", "0.5", "--target", "rpi4", "--timed-by", "moon"],
            "times are told by model, cycles, time, not by 'moon'",
        ),
        (["prune", *MODEL, "--structure", "2:4", "-m", "reconvene"], "the method reconvene removes channels alone"),
        (["prune", *MODEL, "--structure", "dot:4", "-s", "1.5"], "sparsity 1.5"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, *arguments)
    assert not list(folder.glob("*.pt2"))

"""Plans of structures: round trips, what they give to pruning and training, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import reconvene
from reconvene.frontend.base.errors import InputError
from reconvene.passes.pruning.methods.admm import Admm
from reconvene.passes.pruning.structure_plan import PlannedLayer, StructurePlan
from reconvene.passes.pruning.structure_rules import structure_rules

X = (torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)
PLAN = StructurePlan(
    (
        PlannedLayer("0.weight", dense=100.0, sparse=100.0, reason="a first convolution"),
        PlannedLayer("1.weight", "row-block:4", 0.8, 400.0, 120.5, "the smallest block"),
        PlannedLayer("2.weight", "2:4", 0.5, 300.0),
    ),
    "rpi4",
    "model",
    made={"sparsity": 0.8, "beta": 0.2, "data": "hard", "seed": 3, "fast": True, "note": None},
)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    ).eval()  # fmt: skip


def test_there_and_back(tmp_path: Path) -> None:
    PLAN.save(tmp_path / "plan.json")
    again = StructurePlan.load(tmp_path / "plan.json")
    assert again == PLAN and hash(again) == hash(PLAN) and again.made == PLAN.made
    assert StructurePlan.from_json(StructurePlan(()).to_json()) == StructurePlan(())


@given(
    st.lists(
        st.builds(
            PlannedLayer,
            st.uuids().map(str),
            st.sampled_from(["row-block:4", "bcr:16x8", "unstructured", "pattern:8"]),
            st.floats(0, 0.999),
            st.none() | st.floats(0, 1e12),
            st.none() | st.floats(0, 1e12),
            st.text(st.characters(categories=("L", "N", "P"))),
        ),
        max_size=4,
    )
)
def test_any_layers_come_back(layers: list[PlannedLayer]) -> None:
    plan = StructurePlan(tuple(layers))
    assert StructurePlan.from_json(plan.to_json()) == plan
    for layer in layers:
        (rule,) = structure_rules({"x": plan[layer.name]})
        assert rule.asked[0].share == pytest.approx(layer.share, abs=1e-11)


def test_it_is_a_mapping_of_what_takes_a_structure() -> None:
    assert dict(PLAN) == {"1.weight": "row-block:4@0.8", "2.weight": "2:4@0.5"} and len(PLAN) == 2
    assert "0.weight" not in PLAN
    assert {name: len(layers) for name, layers in PLAN.schemes.items()} == {"dense": 1, "row-block:4": 1, "2:4": 1}
    assert PLAN.dense == 800.0 and PLAN.sparse == 520.5


def test_pruning_by_a_plan_gives_what_it_says() -> None:
    result = reconvene.prune(net(), X, structure=PLAN)
    found = {layer.name: layer for layer in result.report.zeros}
    assert found["1.weight"].asked == "row-block:4@0.8" and found["2.weight"].asked == "2:4"
    shares = {name: layer.zeros / layer.weights for name, layer in found.items()}
    assert shares == pytest.approx({"0.weight": 0, "1.weight": 0.8, "2.weight": 0.5, "5.weight": 0}, abs=0.01)
    assert result.report.structures is PLAN
    assert result.plan.origin["structure"] == {"1.weight": "row-block:4@0.8", "2.weight": "2:4@0.5"}
    said = json.loads(result.report.to_json())["structures"]
    assert said["layers"][1]["structure"] == "row-block:4" and said["target"] == "rpi4"
    assert reconvene.prune(net(), X, structure="row-block:4").report.structures is None


def test_a_plan_names_layers_that_stay_dense_otherwise() -> None:
    plan = StructurePlan((PlannedLayer("0.weight", "row-block:4", 0.5), PlannedLayer("5.weight", "row-block:4", 0.5)))
    found = {layer.name: layer.asked for layer in reconvene.prune(net(), X, structure=plan).report.zeros}
    assert (found["0.weight"], found["5.weight"], found["1.weight"]) == ("row-block:4@0.5", "row-block:4@0.5", None)


def test_methods_that_train_take_it() -> None:
    constraint = Admm().with_options({"structure": PLAN}).constraint(reconvene.capture(net(), X))
    assert {view.name: str(structure) for view, structure in constraint.taken.items()} == {
        "1.weight": "row-block:4", "2.weight": "2:4",
    }  # fmt: skip
    recorded = Admm(structure=PLAN).recorded()["structure"]
    assert recorded == [("1.weight", "row-block:4@0.8"), ("2.weight", "2:4@0.5")]


def test_a_plan_for_another_network_is_refused() -> None:
    plan = StructurePlan((PlannedLayer("conv9.weight", "row-block:4", 0.5),))
    with pytest.raises(InputError, match=r"the pattern 'conv9.weight' matches no layer; names look like '0.weight'"):
        reconvene.prune(net(), X, structure=plan)
    with pytest.raises(InputError, match=r"sparsity 0.9 has no meaning with row-block:4@0.5"):
        reconvene.prune(net(), X, structure=plan, sparsity=0.9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PlannedLayer("a", "moss", 0.5), "there is no structure 'moss'"),
        (lambda: PlannedLayer("a", "row-block:4", 1.0), "sparsity 1.0 is outside"),
        (lambda: PlannedLayer("a", "2:4", 0.8), "2:4 says its share of zeros itself"),
        (lambda: PlannedLayer("a", None, 0.8), "'a' stays dense, so its share of zeros is 0, not 0.8"),
        (lambda: StructurePlan((PlannedLayer("a"), PlannedLayer("a"))), "says two things of 'a'"),
    ],
)
def test_plans_that_make_no_sense(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def changed(**fields: Any) -> str:
    return json.dumps({**json.loads(PLAN.to_json()), **fields})


def layer(**fields: Any) -> str:
    return changed(layers=[{**json.loads(PLAN.to_json())["layers"][1], **fields}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no plan of structures; give the .json file that 'reconvene map' wrote"),
        ("[]", "is no plan of structures"),
        ("{" * 100_000, "is no plan of structures"),
        ('{"format": "reconvene-plan", "version": 2}', "is no plan of structures"),
        (changed(version=2), "is a plan of version 2; this program reads version 1"),
        (changed(version=True), "is a plan of version True"),
        (changed(version="9" * 200), "is a plan of version '999"),
        (changed(more=1), "is a damaged plan of structures: unknown field 'more'"),
        (changed(layers={}), "{} is no JSON array"),
        (changed(layers=[3]), "3 is no JSON object"),
        (changed(unit="moons"), "unit 'moons' is none of cycles, s"),
        (changed(target=3), "target 3 is no text"),
        (changed(asked={"x": [1]}), r"\[1\] is no number or text"),
        (layer(structure="moss"), "there is no structure 'moss'"),
        (layer(structure="row-block:99999999"), "is not spelled as row-block:R"),
        (layer(structure=None), "'1.weight' stays dense, so its share of zeros is 0"),
        (layer(share=1), "sparsity 1.0 is outside"),
        (layer(share=-0.5), "share -0.5 is no number from 0 to 1"),
        (layer(share=True), "share True is no number"),
        (layer(dense="much"), "dense 'much' is no number"),
        (layer(name="a\u001b[31m"), "name 'a.x1b.31m' cannot be printed"),
        (layer(reason="a\nb"), "cannot be printed"),
        (PLAN.to_json().replace('"share": 0.8', '"share": NaN'), "is no plan of structures"),
        (PLAN.to_json().replace('"unit"', '"unit": "s", "unit"'), "is no plan of structures"),
    ],
)
def test_files_that_are_none_are_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        StructurePlan.load(tmp_path / "plan.json")
    assert "\n" not in str(raised.value) and "plan.json" in str(raised.value) and len(str(raised.value)) < 600


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the plan"):
        StructurePlan.load(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"is no plan of structures|UTF-8"):
        StructurePlan.load(tmp_path / "bytes.json")

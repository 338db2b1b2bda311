"""Random graphs with random masks: what is left computes what the masked original computes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fuzzing.building import ProgramModule, built, captured
from fuzzing.checking import check
from fuzzing.choices import SeededChoices
from fuzzing.generator import generate
from fuzzing.masking import KINDS
from fuzzing.program import Call, Input, Mask, Program, Ref, Stored, input_values, mask_tensors
from fuzzing.recipes import recipes
from fuzzing.running import Case, random_program, run_case, smallest
from fuzzing.source import source
from hypothesis import HealthCheck, given, note, settings

from reconvene.passes.facts import Facts
from reconvene.passes.rules import elementwise
from reconvene.passes.values import operator_name

from ..support.operators import own_operators
from ..support.random_graphs import programs

EXAMPLES = int(os.environ.get("RECONVENE_RANDOM_GRAPHS", "60"))

FOLDER = Path(__file__).parent / "corpus"


@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 60, suppress_health_check=list(HealthCheck))
@given(programs())
def test_compacted_equals_masked(program: Program) -> None:
    outcome = check(program)
    if outcome.failed:
        note(source(program, outcome.message))
    assert not outcome.failed, f"{outcome.kind} at {outcome.stage}: {outcome.message}"


@pytest.mark.parametrize("number", range(4))
def test_captured_and_saved_graphs_are_exact_too(number: int) -> None:
    program, outcome = run_case(Case(seed=1, number=number, captured=True, files=True))
    assert outcome.kind == "exact", source(program, outcome.message)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_graphs_that_failed_once(path: Path) -> None:
    """Every failure that random graphs have found, as the program that was printed for it."""
    exec(compile(path.read_text(), str(path), "exec"), {"__name__": path.stem})


# The generator ------------------------------------------------------------------------------------------------------


def test_every_registered_operator_occurs() -> None:
    found = {name for number in range(2200) for name in generate(SeededChoices(2, number)).operators}
    assert sorted(own_operators() - found) == []


def test_every_recipe_makes_the_operators_it_is_for() -> None:
    for name in sorted(recipes()):
        made = [generate(SeededChoices(3, number), (2, 3), (name,)).operators for number in range(6)]
        expected = {name} if name != "aten.channel_shuffle" else {name, "aten.transpose"}
        assert any(expected & set(operators) for operators in made), name


def test_the_same_seed_gives_the_same_program() -> None:
    assert [random_program(SeededChoices(5, number)) for number in range(5)] == [
        random_program(SeededChoices(5, number)) for number in range(5)
    ]
    assert random_program(SeededChoices(5, 0)) != random_program(SeededChoices(6, 0))


def test_all_kinds_of_masks_occur() -> None:
    assert {random_program(SeededChoices(7, number), (2, 4)).kind for number in range(25)} == set(KINDS)


def test_several_inputs_and_outputs_and_shared_weights_occur() -> None:
    made = [generate(SeededChoices(7, number)) for number in range(400)]
    assert {len(program.inputs) for program in made} >= {1, 2, 3}
    assert {len(program.outputs) for program in made} >= {1, 2, 3}
    assert any(_most_readers(program) > 1 for program in made), "no weight has two readers"


def _most_readers(program: Program) -> int:
    texts = [repr(call) for call in program.calls]
    return max((sum(repr(Ref(s.name)) in text for text in texts) for s in program.stored), default=0)


def same(one: object, other: object) -> bool:
    """Returns if two outputs are equal; NaN equals NaN."""
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return one == other
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())


@pytest.mark.parametrize("number", range(6))
def test_made_directly_and_captured_are_the_same_graph(number: int) -> None:
    program = generate(SeededChoices(11, number), (2, 6))
    inputs = input_values(program, 4)
    names, results = [], []
    for module in (built(program), captured(program)):
        names.append([operator_name(node) for node in module.graph.nodes if node.op == "call_function"])
        torch.manual_seed(0)
        with torch.no_grad():
            results.append(module(*inputs))
    beside = {"getitem", "aten._assert_tensor_metadata"}  # Which a capture writes before a cast.
    assert set(names[0]) - beside == set(names[1]) - beside
    assert all(same(a, b) for a, b in zip(*results, strict=True))


# Checking, printing, shrinking ----------------------------------------------------------------------------------------

SMALL = Program(
    (Input("x1", (2, 3)),),
    (Stored("w2", (4, 3), 2, scale=0.5), Stored("w3", (4,), 3), Stored("w4", (2, 4), 4)),
    (
        Call("v5", "aten.linear.default", (Ref("x1"), Ref("w2"), Ref("w3"))),
        Call("v6", "aten.cos.default", (Ref("v5"),)),
        Call("v7", "aten.linear.default", (Ref("v6"), Ref("w4"))),
        Call("v8", "aten.mul.Tensor", (Ref("v7"), 2.0)),
    ),
    (Ref("v8"),),
    (Mask("w2", 0, (1, 3)), Mask("w4", None, (0, 5))),
    "branches",
)


def test_masks_as_data() -> None:
    masks = mask_tensors(SMALL)
    assert masks["w2"].tolist() == [[True] * 3, [False] * 3, [True] * 3, [False] * 3]
    assert masks["w4"].tolist() == [[False, True, True, True], [True, False, True, True]]
    module = ProgramModule(SMALL, masks)
    assert bool((module.w2[1] == 0).all()) and bool((module.w2[0] != 0).all())


def test_check_reports_what_went() -> None:
    outcome = check(SMALL, files=True)
    assert outcome.kind == "exact"
    assert outcome.relative < 1e-14
    assert outcome.removed > 0.3


@pytest.fixture
def wrong_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deliberate bug: constants pass through the cosine as if it were nothing."""
    right = elementwise.Elementwise.constants

    def wrong(self: elementwise.Elementwise, op: object, facts: dict[object, Facts]) -> object:
        if op.name == "aten.cos":  # type: ignore[attr-defined]
            return facts[op["self"]]  # type: ignore[index]
        return right(self, op, facts)  # type: ignore[arg-type]

    monkeypatch.setattr(elementwise.Elementwise, "constants", wrong)


def test_a_wrong_rule_is_found_and_shrinks_to_few_calls(wrong_cosine: None) -> None:
    """Random graphs with a cosine: the first that fails becomes one with the cosine, what makes and what reads it."""
    for number in range(200):
        case = Case(seed=0, number=number, only=("aten.cos",))
        program, outcome = run_case(case)
        if outcome.kind == "mismatch":
            break
    assert outcome.kind == "mismatch", "no graph found the bug"
    small = smallest(program, outcome, case)
    assert check(small).kind == "mismatch"
    assert "aten.cos" in small.operators
    assert len(small.calls) <= 3 < len(program.calls)
    assert len(small.masks) == 1 and len(small.outputs) == 1


def test_exceptions_are_outcomes_and_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Facts:
        raise KeyError("nothing here")

    monkeypatch.setattr(elementwise.Gated, "constants", broken)
    outcomes = (run_case(Case(seed=4, number=number, only=("aten.glu",))) for number in range(50))
    program, outcome = next((p, o) for p, o in outcomes if o.kind == "exception")
    assert "KeyError at test_random_graphs.py" in outcome.message
    small = smallest(program, outcome, Case(seed=4, number=0))
    assert small.operators == ("aten.glu",)
    assert small.masks == ()


def test_a_step_on_its_edge_is_unstable_and_not_a_mismatch(wrong_cosine: None) -> None:
    """The masked graph's own rounding decides here, so a difference shows nothing."""
    calls = (
        Call("v5", "aten.linear.default", (Ref("x1"), Ref("w2"), Ref("w3"))),
        Call("v6", "aten.cos.default", (Ref("v5"),)),
        Call("v7", "aten.mul.Tensor", (Ref("v6"), 1e17)),
        Call("v8", "aten.sin.default", (Ref("v7"),)),
        Call("v9", "aten.linear.default", (Ref("v8"), Ref("w4"))),
    )
    program = Program(SMALL.inputs, SMALL.stored, calls, (Ref("v9"),), SMALL.masks)
    assert check(program).kind == "unstable"


def test_a_printed_program_runs_on_its_own(tmp_path: Path) -> None:
    path = tmp_path / "graph.py"
    path.write_text(source(SMALL, 'A graph with "quotes" in\nits title'))
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_printed_program_says_what_differs() -> None:
    text = source(SMALL, "other inputs").replace("result.module(*inputs(1))", "result.module(*inputs(2))")
    with pytest.raises(AssertionError, match=r"masked and compacted differ by .*e"):
        exec(compile(text, "graph", "exec"), {"__name__": "graph"})


@pytest.mark.parametrize("number", range(12))
def test_printed_programs_have_the_graph_and_its_masks(number: int) -> None:
    program = random_program(SeededChoices(9, number), (2, 6))
    text = source(program, "a title")
    names: dict[str, object] = {}
    exec(compile(text[: text.index("result = ")], "graph", "exec"), names)
    masks = names["masks"]
    assert isinstance(masks, dict)
    expected = mask_tensors(program)
    assert masks.keys() == expected.keys()
    assert all(torch.equal(masks[name], expected[name]) for name in masks)
    inputs = input_values(program, 3)
    module = names["model"]
    assert isinstance(module, torch.nn.Module)
    torch.manual_seed(0)
    with torch.no_grad():
        for one, other in zip(module(*inputs), ProgramModule(program)(*inputs), strict=True):
            assert same(one, other)
    assert not re.search(r"[ \t]\n", text), "trailing blanks"

"""Which mutants are made: places of the code drawn at random, with a small change for each.

Cosmic Ray finds the places and makes the change. Of its operators those are used whose result has the type of what it
replaces: that ``a + b`` is not ``a | b`` every test finds out.
"""

from __future__ import annotations

import ast
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.work_item import MutationSpec

from .passed_over import PassedOver

__all__ = ["TARGETS", "code_lines", "draw", "mutants_of", "mutated", "target_files"]

TARGETS = (
    "passes/**/*.py",
    *(f"backends/{name}.py" for name in (
        "arena", "emit", "fold", "fusion", "graph", "layout", "memory_plan", "pipeline", "read", "structure", "weights",
    )),
    "backends/kernels/*.py",
)  # fmt: skip
"""The passes, what the backend does to its graph, and the kernels."""

_BINARY = (
    "Add_Sub Sub_Add Mul_FloorDiv Div_Mul FloorDiv_Mul Mod_FloorDiv Pow_Mul BitAnd_BitOr BitOr_BitAnd LShift_RShift"
)
_COMPARISON = "Eq_NotEq NotEq_Eq Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt Is_IsNot IsNot_Is"
_UNARY = "Delete_Not Delete_Invert USub_UAdd"
_OTHER = (
    "AddNot ReplaceTrueWithFalse ReplaceFalseWithTrue ReplaceAndWithOr ReplaceOrWithAnd ReplaceBreakWithContinue "
    "ReplaceContinueWithBreak ExceptionReplacer NumberReplacer RemoveDecorator ZeroIterationForLoop"
)
_NAMES = {
    "ReplaceBinaryOperator": _BINARY,
    "ReplaceComparisonOperator": _COMPARISON,
    "ReplaceUnaryOperator": _UNARY,
}
OPERATORS = tuple(
    [f"core/{kind}_{change}" for kind, changes in _NAMES.items() for change in changes.split()]
    + [f"core/{name}" for name in _OTHER.split()]
)


def target_files(tree: Path) -> list[str]:
    """Files of `TARGETS`, relative to `tree`, in order."""
    found = {path.relative_to(tree).as_posix() for pattern in TARGETS for path in tree.glob(pattern)}
    return sorted(name for name in found if not name.endswith("__init__.py"))


def code_lines(source: str) -> int:
    """Lines that are neither empty nor a comment."""
    lines = (line.strip() for line in source.splitlines())
    return sum(bool(line) and not line.startswith("#") for line in lines)


def mutants_of(file: str, source: str) -> Iterator[MutationSpec]:
    """Every change of `source` that is not passed over. `file` is kept as its name."""
    tree, passed_over = get_ast(source), PassedOver(source)
    nodes = list(ast_nodes(tree))
    for name in OPERATORS:
        operator = cosmic_ray.plugins.get_operator(name)()
        places = ((start, end) for node in nodes for start, end in operator.mutation_positions(node))
        for occurrence, (start, end) in enumerate(places):
            if start < end and not passed_over.reason(start, name):
                yield MutationSpec(file, name, occurrence, start, end)


def draw(tree: Path, count: int, seed: int, files: Sequence[str] = ()) -> list[MutationSpec]:
    """`count` mutants, no two at one place: a file as often as it has lines of code, in it any place, there any change."""
    chosen = list(files) or target_files(tree)
    sources = {file: (tree / file).read_text(encoding="utf-8") for file in chosen}
    weights = [code_lines(source) for source in sources.values()]
    places: dict[str, list[list[MutationSpec]]] = {}
    generator = random.Random(seed)
    drawn: list[MutationSpec] = []
    while len(drawn) < count and any(weights):
        number = generator.choices(range(len(chosen)), weights)[0]
        file = chosen[number]
        if file not in places:
            by_place: defaultdict[tuple[int, int], list[MutationSpec]] = defaultdict(list)
            for mutant in mutants_of(file, sources[file]):
                by_place[mutant.start_pos].append(mutant)
            places[file] = [by_place[place] for place in sorted(by_place)]
        if not places[file]:
            weights[number] = 0
            continue
        mutant = generator.choice(places[file].pop(generator.randrange(len(places[file]))))
        if _compiles(mutated(mutant, sources[file])):
            drawn.append(mutant)
    return drawn


def mutated(mutant: MutationSpec, source: str) -> str:
    """`source` with the change. Raises ValueError where there is no such place."""
    operator = cosmic_ray.plugins.get_operator(mutant.operator_name)()
    changed: str | None = mutate_code(source, operator, mutant.occurrence)
    if changed is None:
        raise ValueError(f"{mutant.module_path} has no place {mutant.occurrence} for {mutant.operator_name}")
    return changed


def _compiles(source: str) -> bool:
    """``not x := 1`` does not, for one."""
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True

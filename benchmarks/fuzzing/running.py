"""Graph `number` of a seed: made, masked, checked, and made small where it fails."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .building import built
from .checking import Outcome, check
from .choices import Choices, SeededChoices
from .generator import generate
from .masking import KINDS, masked
from .program import Program
from .shrinking import shrink

__all__ = ["Case", "random_program", "run_case", "smallest"]


@dataclass(frozen=True)
class Case:
    """One graph of a run. `captured`: by torch.export; `files`: saved as ``.pt2`` and loaded, too; `masks`: of which kinds."""

    seed: int
    number: int
    captured: bool = False
    files: bool = False
    only: tuple[str, ...] = ()
    masks: tuple[str, ...] = KINDS


def random_program(
    choices: Choices, steps: tuple[int, int] = (2, 12), only: tuple[str, ...] = (), masks: tuple[str, ...] = KINDS
) -> Program:
    """A random program with random masks."""
    program = generate(choices, steps, only)
    try:
        return masked(program, built(program), choices, masks)
    except Exception:
        # The passes cannot look at this graph, which the check will find as well, whatever the masks are.
        return replace(program, kind="none")


def run_case(case: Case) -> tuple[Program, Outcome]:
    """The program and what its check found."""
    program = random_program(SeededChoices(case.seed, case.number), only=case.only, masks=case.masks)
    return program, check(program, through_capture=case.captured, files=case.files)


def smallest(program: Program, outcome: Outcome, case: Case) -> Program:
    """The smallest program that was found to fail in the same way."""

    def fails(smaller: Program) -> bool:
        found = check(smaller, through_capture=case.captured, files=outcome.stage == "file")
        return (found.kind, _signature(found)) == (outcome.kind, _signature(outcome))

    return shrink(program, fails)


def _signature(outcome: Outcome) -> str:
    """What has to stay the same: the type and place of an exception; any mismatch is like any other."""
    return outcome.message.partition(": ")[0] if outcome.kind == "exception" else ""

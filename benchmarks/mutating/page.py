"""What a run of mutants came to, as JSON and as a page."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .session import Mutant, Session

__all__ = ["as_json", "as_markdown", "explained"]

EXPLANATIONS = Path(__file__).resolve().parent / "explained.toml"
"""Mutants that compute the same as the original, or differ in nothing that is promised, each with the reason."""


@dataclass(frozen=True)
class Explanation:
    """Why a change of a line is none."""

    file: str
    before: str
    after: str
    reason: str

    def fits(self, mutant: Mutant) -> bool:
        return (self.file, self.before, self.after) == (mutant.file, mutant.before, mutant.after)


def explained() -> list[Explanation]:
    """All that are written down."""
    return [Explanation(**entry) for entry in tomllib.loads(EXPLANATIONS.read_text(encoding="utf-8"))["mutant"]]


def as_json(session: Session) -> dict[str, Any]:
    """Counts, the score, and every mutant with what became of it."""
    known = explained()
    rows = [_row(mutant, known) for mutant in session.mutants() if mutant.verdict is not None]
    counts = Counter(row["outcome"] for row in rows)
    killed, different = counts["killed"], len(rows) - counts["equivalent"]
    return {
        **{name: session.about[name] for name in ("seed", "commit", "mutants")},
        "tried": len(rows),
        "killed": killed,
        "equivalent": counts["equivalent"],
        "survived": counts["survived"],
        "score": round(killed / different, 4) if different else None,
        "killed_by": dict(Counter(row["by"] for row in rows if row["outcome"] == "killed").most_common()),
        "rows": rows,
    }


def _row(mutant: Mutant, known: Sequence[Explanation]) -> dict[str, Any]:
    verdict = mutant.verdict
    assert verdict is not None
    reason = next((entry.reason for entry in known if entry.fits(mutant)), "")
    outcome = "killed" if verdict.killed else "equivalent" if reason else "survived"
    row = {
        "file": mutant.file,
        "line": mutant.spec.start_pos[0],
        "operator": mutant.spec.operator_name.removeprefix("core/"),
        "before": mutant.before,
        "after": mutant.after,
        "outcome": outcome,
        "by": verdict.kind,
        "test": verdict.test,
        "tests": verdict.tests,
    }
    return row | ({"reason": reason} if outcome == "equivalent" else {})


_HEAD = """# Mutants

Small changes of the code, one at a time, that the tests are to notice. `python benchmarks/mutation.py FOLDER` draws {count}
places of the passes, the backend's graph and the kernels (a file as often as it has lines of code, any place in it), lets
[Cosmic Ray](https://cosmic-ray.readthedocs.io) change each, and runs the tests that execute that line, the fastest first,
until one fails. Tests over 10 s are not used. All of it happens in a copy of the code.

Types, texts for a person, caches, flags of `dataclass` and `zip(strict=True)` are not changed. What computes the same after
the change, or differs in speed alone, is listed below with the reason and counts neither way.

Seed {seed}, commit {commit}: **{killed} of {different} killed ({score})**, {equivalent} equivalent, {survived} survived.
"""


def as_markdown(data: dict[str, Any]) -> str:
    """The page of what `as_json` gave."""
    rows = data["rows"]
    different = data["tried"] - data["equivalent"]
    score = "no score" if data["score"] is None else f"{data['score']:.1%}"
    numbers = {name: data[name] for name in ("seed", "commit", "killed", "equivalent", "survived")}
    parts = [_HEAD.format(count=data["mutants"], different=different, score=score, **numbers)]
    if data["tried"] < data["mutants"]:
        parts.append(f"{data['mutants'] - data['tried']} of {data['mutants']} were not tried yet.\n")
    parts.append(_table(rows))
    for title, outcome in (("Survivors", "survived"), ("Equivalent", "equivalent")):
        chosen = [row for row in rows if row["outcome"] == outcome]
        if chosen:
            parts.append(f"## {title}\n\n" + "\n".join(map(_entry, chosen)) + "\n")
    return "\n".join(parts)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| code | mutants | killed | equivalent | survived |", "|---|--:|--:|--:|--:|"]
    for folder in sorted({_folder(row["file"]) for row in rows}):
        counts = Counter(row["outcome"] for row in rows if _folder(row["file"]) == folder)
        numbers = (sum(counts.values()), *(counts[name] for name in ("killed", "equivalent", "survived")))
        lines.append(f"| {folder}/ | {' | '.join(map(str, numbers))} |")
    return "\n".join(lines) + "\n"


def _folder(file: str) -> str:
    return file.rpartition("/")[0]


def _entry(row: dict[str, Any]) -> str:
    change = f"`{row['before']}` as `{row['after']}`" if row["after"] else f"without `{row['before']}`"
    reason = f": {row['reason']}" if row.get("reason") else ""
    return f"- `{row['file']}`, line {row['line']}: {change}{reason}"

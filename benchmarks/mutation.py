"""Changes the code in small ways, one at a time, and finds out whether a test notices.

    python benchmarks/mutation.py out/mutation [--mutants 200] [--seed 0] [--seconds 3600] [--report docs/results/mutation]
    python benchmarks/mutation.py out/mutation --again           tests were added: those that survived are tried once more
    python benchmarks/mutation.py out/mutation --seconds 0 --report docs/results/mutation       only the page

Needs the extra "mutation". All happens in a copy of the checkout in the folder, which also keeps the state: the same command
goes on where the last one stopped, however it stopped. First every test runs once to find out which lines it covers
(minutes; per file of tests), then each mutant meets the tests that cover its line, the fastest first, until one fails.
--report writes NAME.json and NAME.md; changes that are none are named in mutating/explained.toml. The folder's session.sqlite
is Cosmic Ray's own (``cr-report``, ``cr-html``).

Exit code 1 if less than --least of the mutants that are no equivalents were killed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from mutating.children import load_libraries
from mutating.page import as_json, as_markdown, explained
from mutating.session import Session

CHECKOUT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the copy and the state are kept")
    parser.add_argument("--mutants", type=int, default=200, help="how many; of a new folder")
    parser.add_argument("--seed", type=int, default=0, help="of a new folder")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="begin nothing new after that time; 0: run nothing"
    )
    parser.add_argument("--again", action="store_true", help="take changed tests over, try what survived once more")
    parser.add_argument("--report", type=Path, help="NAME.json and NAME.md are written at the end")
    parser.add_argument("--least", type=float, default=0.95, help="share that has to be killed")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    session = Session.begun(options.folder, CHECKOUT, options.mutants, options.seed)
    if options.seconds > 0:
        try:
            with session.alone():
                run(session, end, options.again)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    data = as_json(session)
    if options.report:
        options.report.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
        options.report.with_suffix(".md").write_text(as_markdown(data))
    print(f"{data['killed']} killed, {data['equivalent']} equivalent, {data['survived']} survived of {data['tried']}")
    return 0 if (data["score"] or 0.0) >= options.least else 1


def run(session: Session, end: float, again: bool) -> None:
    """Maps the tests and tries mutants until `end`."""
    load_libraries()
    if again:
        for file in session.renew_tests(CHECKOUT):
            print(f"changed: {file}", flush=True)
    for file, whole in session.map_tests():
        print(f"covered: {file}{'' if whole else ' (did not run to its end)'}", flush=True)
        if time.monotonic() > end:
            return
    covered, known = session.covering(), explained()
    waiting = [m for m in session.waiting(again) if m.verdict is None or not any(entry.fits(m) for entry in known)]
    for number, mutant in enumerate(waiting, 1):
        if time.monotonic() > end:
            return
        began = time.monotonic()
        verdict = session.try_mutant(mutant, covered)
        took = time.monotonic() - began
        place = f"{mutant.file}:{mutant.spec.start_pos[0]}"
        print(f"{number}/{len(waiting)} {mutant.key} {verdict.kind} {took:.0f} s {place} {verdict.test}", flush=True)
        if not verdict.killed:
            print(f"    - {mutant.before}\n    + {mutant.after}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

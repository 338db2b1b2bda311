"""``reconvene compile``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from .. import api
from ..answer import Answer, files_line, says
from ..example_inputs import nested
from ..models import load_model
from ..outputs import check_folder, suffixed
from ..wording import kept, size

__all__ = ["run"]


def run(
    model: str,
    inputs: Sequence[str],
    target: str,
    options: Mapping[str, Any],
    link: bool,
    runtime: str | None,
    output: Path | None,
    seed: int,
    check_files: Sequence[Path] = (),
    dynamic: Sequence[str] = (),
) -> Answer:
    """`options` are those of `api.compile`, and the board's ``key_file``; `check_files` hold the inputs of one call each.

    The model must be one whose `dynamic` sizes may vary; the code is for those of the inputs.
    """
    from ...backends.bundles.write import check_runtime
    from ...backends.machines.targets import find_target
    from ...backends.state import described
    from ..arrays import read_arrays

    chosen = check_runtime(find_target(target), runtime, link)
    if chosen == "none" and options["threads"] > 1:
        raise InputError(
            f"--threads has no meaning for '{target}' without a runtime, whose kernels run in turn; leave it out, or name"
            " another --runtime"
        )
    if output is not None:
        check_folder(output)
    options = with_board(options)
    loaded = load_model(model, inputs, seed, dynamic)
    check_inputs = [nested(read_arrays(path), loaded.example_inputs) for path in check_files]
    folder = output or suffixed(loaded.beside, f"-{Path(target).stem}")
    check_folder(folder)
    built = api.compile(loaded.module, loaded.example_inputs, target, check_inputs=check_inputs, **options)
    with stage("writing the bundle"):
        runtime_ = None if not link else chosen
        built.export(folder, link=link, runtime=runtime_, certificate=loaded.certificate)
    files = {"bundle": str(folder)}
    memory = built.memory
    facts = {"model": loaded.name, "target": target, "runtime": chosen, "threads": options["threads"]}
    needs = (
        f"memory: weights {size(memory.weights_bytes)}; values between kernels {size(memory.arena_bytes)}, of which"
        f" {size(memory.live_bytes)} are needed at the same time"
    )
    if built.state:
        needs += f"; state {size(memory.state_bytes)}"
    state = described(built.state)
    better = sum(kernel.kept for kernel in built.tuned)
    tuned = (
        [f"tuned: {better} of {len(built.tuned)} kernels are faster than with our schedule"] if options["tune"] else []
    )
    found = [dataclasses.asdict(kernel) for kernel in built.tuned]
    data = {**facts, "memory": dataclasses.asdict(memory), "state": state, "tuned": found, "files": files}
    what = f"{loaded.name} compiled for {target}, for inputs of {', '.join(map(str, built.inputs))}"
    return Answer(data, says(what, needs, *kept(state), *tuned, files_line(files)))


def with_board(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `api.compile`, with the board that ``on`` and ``key_file`` name in place of the two."""
    from ...backends.boards.place import parse_place

    on, key_file = options["on"], options["key_file"]
    kept = {name: value for name, value in options.items() if name != "key_file"}
    return kept if on is None else {**kept, "on": parse_place(on, key_file)}

"""Running and timing a bundle: in this process, as a program here, on an emulated board, or on one over the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...backends.built import load_bundle
from ...backends.bundles.execution import benchmark_bundle, bundle_emulator
from ...backends.bundles.execution import run_bundle as run_program
from ...backends.bundles.manifest import Bundle
from ...backends.bundles.read import open_bundle
from ...backends.dtypes import torch_dtype
from ...backends.state import described as described_state
from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from ..answer import Answer, says
from ..arrays import Given, check_array_file, in_order
from ..example_inputs import random_input
from ..wording import kept

if TYPE_CHECKING:
    from ...backends.boards.session import Done
    from ...backends.machines.emulation import Emulator
    from ...backends.measure import Timing

__all__ = ["bench_bundle", "lost_lines", "run_bundle"]


def run_bundle(
    folder: str,
    given: Sequence[Given],
    on: str | None,
    threads: int | None,
    seed: int,
    timeout: int,
    output: Path | None = None,
    key_file: Path | None = None,
    manifest_sha256: str | None = None,
) -> tuple[Bundle, list[torch.Tensor], dict[str, Any]]:
    """A bundle, its outputs, and facts on where they were computed. `manifest_sha256` is for `open_bundle`."""
    bundle = open_bundle(folder, manifest_sha256=manifest_sha256)
    check_array_file(output, len(bundle.outputs))
    check_threads_of(bundle, threads)
    inputs = in_order(given, [spec.name for spec in bundle.inputs]) if given else example_inputs_of(bundle, seed)
    state = {"state": described_state(bundle.state)}
    if on is not None and on != "qemu":
        from ...backends.boards.jobs import run_on_board

        with stage(f"running on {on}"):
            done = run_on_board(bundle, inputs, checked_place(on, key_file), threads, limits(timeout))
        return bundle, list(done.value), {**state, **board_facts(done)}
    emulator = emulator_for(bundle, on)
    with stage("running"):
        if bundle.runtime == "python" and emulator is None:
            built = load_bundle(folder, manifest_sha256=manifest_sha256)
            outputs = replace(built, threads=threads or built.threads).run_tensors(inputs)
        else:
            outputs = run_program(bundle, inputs, emulator, threads)
        return bundle, list(outputs), state


def bench_bundle(
    folder: str,
    on: str | None,
    threads: int | None,
    repeat: int | None,
    timeout: int,
    key_file: Path | None = None,
    manifest_sha256: str | None = None,
) -> Answer:
    """Times a bundle. On an emulated board it only runs, since emulated seconds say nothing of the board's."""
    bundle = open_bundle(folder, manifest_sha256=manifest_sha256)
    check_threads_of(bundle, threads)
    data: dict[str, Any] = {"bundle": folder, "target": bundle.target.name, "state": described_state(bundle.state)}
    keeps = kept(data["state"])
    if on is not None and on != "qemu":
        from ...backends.boards.jobs import benchmark_on_board

        with stage(f"running on {on}"):
            done = benchmark_on_board(
                bundle, repeat or 50, checked_place(on, key_file), threads=threads, limits=limits(timeout)
            )
        facts = board_facts(done)
        found = {**data, "repeats": repeat or 50, "emulated": None, **facts, "timing": dataclasses.asdict(done.value)}
        return Answer(found, says(*lost_lines(facts), f"board {done.board}: {described(done.value)}", *keeps))
    emulator = emulator_for(bundle, on)
    rounds = repeat or (1 if emulator else 50)
    data["repeats"] = rounds
    timing: Timing | None
    with stage("running"):
        if bundle.runtime == "python" and emulator is None:
            timing = load_bundle(folder, manifest_sha256=manifest_sha256).benchmark(repeat=rounds, threads=threads)
        else:
            timing = benchmark_bundle(bundle, rounds, 0 if emulator else 5, emulator, threads)
    if timing is None:
        cpu = emulator.cpu if emulator else ""
        line = f"ran {rounds} times on an emulated {cpu}; an emulator's time is not the board's, so none is given"
        return Answer({**data, "emulated": cpu, "timing": None}, says(line, *keeps))
    return Answer({**data, "emulated": None, "timing": dataclasses.asdict(timing)}, says(described(timing), *keeps))


def described(timing: Timing) -> str:
    spread = f"p10 {timing.p10_ms:.3f}, p90 {timing.p90_ms:.3f}; {timing.repeats} runs, {timing.threads} threads"
    return f"median {timing.median_ms:.3f} ms ({spread})"


def check_threads_of(bundle: Bundle, threads: int | None) -> None:
    """Raises InputError if threads were asked for where there are none."""
    if threads is not None and bundle.runtime == "none":
        raise InputError(
            f"--threads has no meaning for bundle '{bundle.folder}', which has no runtime: its kernels run in turn; leave it"
            " out"
        )


def emulator_for(bundle: Bundle, on: str | None) -> Emulator | None:
    """QEMU if ``--on`` asks for it. Raises InputError if there is none."""
    return None if on is None else bundle_emulator(bundle)


def checked_place(on: str, key_file: Path | None = None) -> Any:
    """The place that ``--on`` names, with the key in ``--key-file``. Raises InputError if there is none."""
    from ...backends.boards.place import is_place, parse_place

    if not is_place(on):
        raise InputError(
            f"a bundle runs here, on qemu, on rpc://HOST:PORT or on tracker://HOST:PORT/KEY, not on '{on}'"
        )
    return parse_place(on, key_file)


def limits(timeout: int) -> Any:
    from ...backends.boards.session import Limits

    return Limits(session=timeout)


def board_facts(done: Done[Any]) -> dict[str, Any]:
    return {"board": done.board, "lost": list(done.lost)}


def lost_lines(facts: Mapping[str, Any]) -> Sequence[str]:
    """What went wrong on boards before one did the work."""
    return [f"lost: {reason}" for reason in facts.get("lost", ())]


def example_inputs_of(bundle: Bundle, seed: int) -> tuple[torch.Tensor, ...]:
    """Inputs of the shapes and dtypes that a bundle takes."""
    return tuple(
        random_input(spec.shape, torch_dtype(spec.dtype), seed + index) for index, spec in enumerate(bundle.inputs)
    )

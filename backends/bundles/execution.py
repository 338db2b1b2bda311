"""Running the program of a bundle, on this machine or an emulated one."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...frontend.base.array_files import parse_npy
from ...frontend.base.arrays import as_tensor
from ...frontend.base.errors import InputError
from ...frontend.base.files import read_regular
from ...frontend.base.json_text import json_count, json_number, json_object, parse_json, shortened
from ..machines.emulation import Emulator, find_emulator
from ..measure import Timing
from ..signature import checked_inputs
from .manifest import Bundle

__all__ = [
    "benchmark_bundle",
    "bundle_emulator",
    "failure",
    "output_files",
    "program_timing",
    "run_bundle",
    "run_in_turn",
    "write_inputs",
]

_MAX_COUNT = 1 << 31


def bundle_emulator(bundle: Bundle) -> Emulator:
    """The emulator for a bundle's program. Raises InputError as `find_emulator` does."""
    return find_emulator(bundle.target, libraries=bundle.runtime == "wheel")


def run_bundle(
    bundle: Bundle, inputs: Sequence[Any], emulator: Emulator | None = None, threads: int | None = None
) -> tuple[torch.Tensor, ...]:
    """The outputs of the bundle's program for torch tensors or numpy arrays.

    Args:
        emulator: where it runs; on this machine unless given.
        threads: what it runs with; what it was compiled with unless given.

    Raises:
        InputError: the bundle holds no program or one for another machine, the inputs are not what the model takes, or
            the program fails; then with its own words.
    """
    return run_in_turn(bundle, [inputs], emulator, threads)[0]


def run_in_turn(
    bundle: Bundle, calls: Sequence[Sequence[Any]], emulator: Emulator | None = None, threads: int | None = None
) -> list[tuple[torch.Tensor, ...]]:
    """The outputs of several calls, one after the other: what the model keeps, each finds as the one before left it.

    Raises:
        InputError: as `run_bundle`.
    """
    command = _command(bundle, emulator)
    sets = [[tensor.numpy() for tensor in checked_inputs(bundle.inputs, inputs)] for inputs in calls]
    if not bundle.inputs and len(sets) > 1:
        raise InputError(
            f"the model of bundle '{bundle.folder}' takes no inputs, so its program makes one call at a time"
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if bundle.target.bare:
            return _run_bare(bundle, command, sets, folder)
        files = []
        for call, arrays in enumerate(sets):
            for index, array in enumerate(arrays):
                files.append(folder / f"{call}.input{index}.npy")
                np.save(files[-1], array, allow_pickle=False)
        chosen = [] if threads is None else ["--threads", str(threads)]
        _execute(bundle, [*command, *map(str, files), "-o", temporary, *chosen])
        names = output_files(len(sets), len(bundle.outputs))
        return [tuple(_output(folder / name, bundle) for name in row) for row in names]


def program_timing(bundle: Bundle, text: str) -> Timing:
    """What a bundle's program says of its runs. Raises InputError if it says something else."""
    try:
        said = json_object(parse_json(text), [field.name for field in fields(Timing)])
        counts = {name: json_count(said.pop(name), name, _MAX_COUNT) for name in ("repeats", "threads", "batch")}
        milliseconds = {name: json_number(value, name) for name, value in said.items()}
        values: dict[str, Any] = {**counts, **milliseconds}
        return Timing(**values)
    except ValueError:
        raise InputError(f"bundle '{bundle.folder}' printed no times but {shortened(text)}; compile it again") from None


def _output(path: Path, bundle: Bundle) -> torch.Tensor:
    try:
        return as_tensor(parse_npy(read_regular(path), f"cannot read an output of bundle '{bundle.folder}'"))
    except OSError as error:
        raise InputError(
            f"bundle '{bundle.folder}' wrote no output that can be read: {error.strerror or error}; compile it again"
        ) from None


def output_files(calls: int, outputs: int) -> list[list[str]]:
    """What a program calls the files that it writes, by call."""
    prefixes = [f"{call}." for call in range(calls)] if calls > 1 else [""]
    return [[f"{prefix}output{index}.npy" for index in range(outputs)] for prefix in prefixes]


def benchmark_bundle(
    bundle: Bundle, repeat: int, warmup: int = 5, emulator: Emulator | None = None, threads: int | None = None
) -> Timing | None:
    """Wall time of the program's runs on random inputs; None on an emulator, whose time says nothing of the board's.

    Raises:
        InputError: as `run_bundle`.
    """
    if bundle.target.bare:
        inputs = [np.zeros(spec.shape, spec.dtype) for spec in bundle.inputs]
        run_in_turn(bundle, [inputs] * repeat, emulator) if inputs else run_bundle(bundle, inputs, emulator)
        return None
    chosen = [] if threads is None else ["--threads", str(threads)]
    options = ["--bench", str(repeat), "--warmup", str(warmup), "--json", *chosen]
    text = _execute(bundle, [*_command(bundle, emulator), *options])
    return None if emulator is not None else program_timing(bundle, text)


def _run_bare(
    bundle: Bundle, command: list[str], sets: Sequence[Sequence[np.ndarray[Any, Any]]], folder: Path
) -> list[tuple[torch.Tensor, ...]]:
    """The outputs of a program without an operating system: it reads and writes plain bytes, by QEMU's hand."""
    write_inputs(bundle, sets, folder)
    _execute(bundle, command, folder)
    found = [
        np.fromfile(folder / f"output{index}", spec.dtype).reshape(len(sets), *spec.shape)
        for index, spec in enumerate(bundle.outputs)
    ]
    return [tuple(torch.from_numpy(array[call]) for array in found) for call in range(len(sets))]


def write_inputs(bundle: Bundle, sets: Sequence[Sequence[np.ndarray[Any, Any]]], folder: Path) -> None:
    """The files that the program of a bundle without an operating system reads, for calls in turn."""
    for index in range(len(bundle.inputs)):
        (folder / f"input{index}").write_bytes(b"".join(arrays[index].tobytes() for arrays in sets))


def _command(bundle: Bundle, emulator: Emulator | None) -> list[str]:
    program, target = bundle.program, bundle.target
    if program is None:
        way = "a compiler for it makes one" if target.bare else "compile it with --runtime static"
        raise InputError(f"bundle '{bundle.folder}' holds no program; {way}")
    if emulator is None and not target.runs_here:
        raise InputError(
            f"bundle '{bundle.folder}' is for '{target.name}' ({target.triple}) and cannot run here; copy it there, or"
            " emulate the board with --on qemu"
        )
    return [*(emulator.command if emulator else ()), str(program.resolve())]


def _execute(bundle: Bundle, command: list[str], folder: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=folder, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise InputError(f"cannot run the program of bundle '{bundle.folder}': {error.strerror or error}") from None
    if done.returncode == 0:
        return done.stdout
    raise InputError(failure(bundle, done.returncode, done.stderr))


def failure(bundle: Bundle, status: int, stderr: str) -> str:
    """Why the bundle's program ended with `status` (a signal's number if it is negative), in its own words if it had any."""
    said = [line.removeprefix("error: ") for line in stderr.splitlines() if line.startswith("error: ")]
    if not said and status < 0:
        known = {entry.value: entry.name for entry in signal.Signals}
        said = [f"it was ended by {known.get(-status, f'signal {-status}')}"]
    reason = (said or stderr.strip().splitlines()[-1:] or [f"exit code {status}"])[0]
    return f"the program of bundle '{bundle.folder}' failed: {reason}"

"""Running the program of a bundle, on this machine or an emulated one."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..frontend.errors import InputError
from .bundle import Bundle
from .emulation import Emulator, find_emulator
from .measure import Timing
from .signature import checked_inputs

__all__ = ["benchmark_bundle", "bundle_emulator", "failure", "run_bundle"]


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
    command = _command(bundle, emulator)
    arrays = [tensor.numpy() for tensor in checked_inputs(bundle.inputs, inputs)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if bundle.target.bare:
            return _run_bare(bundle, command, arrays, folder)
        files = [folder / f"input{index}.npy" for index in range(len(arrays))]
        for file, array in zip(files, arrays, strict=True):
            np.save(file, array, allow_pickle=False)
        chosen = [] if threads is None else ["--threads", str(threads)]
        _execute(bundle, [*command, *map(str, files), "-o", temporary, *chosen])
        return tuple(
            torch.from_numpy(np.load(folder / f"output{index}.npy", allow_pickle=False))
            for index in range(len(bundle.outputs))
        )


def benchmark_bundle(
    bundle: Bundle, repeat: int, warmup: int = 5, emulator: Emulator | None = None, threads: int | None = None
) -> Timing | None:
    """Wall time of the program's runs on random inputs; None on an emulator, whose time says nothing of the board's.

    Raises:
        InputError: as `run_bundle`.
    """
    if bundle.target.bare:
        inputs = [np.zeros(spec.shape, spec.dtype) for spec in bundle.inputs]
        for _ in range(repeat):
            run_bundle(bundle, inputs, emulator)
        return None
    chosen = [] if threads is None else ["--threads", str(threads)]
    options = ["--bench", str(repeat), "--warmup", str(warmup), "--json", *chosen]
    text = _execute(bundle, [*_command(bundle, emulator), *options])
    return None if emulator is not None else Timing(**json.loads(text))


def _run_bare(
    bundle: Bundle, command: list[str], arrays: Sequence[np.ndarray[Any, Any]], folder: Path
) -> tuple[torch.Tensor, ...]:
    """The outputs of a program without an operating system: it reads and writes plain bytes, by QEMU's hand."""
    for index, array in enumerate(arrays):
        (folder / f"input{index}").write_bytes(array.tobytes())
    _execute(bundle, command, folder)
    found = [np.fromfile(folder / f"output{i}", spec.dtype) for i, spec in enumerate(bundle.outputs)]
    return tuple(torch.from_numpy(a.reshape(spec.shape)) for a, spec in zip(found, bundle.outputs, strict=True))


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
        said = [f"it was ended by {signal.Signals(-status).name}"]
    reason = (said or stderr.strip().splitlines()[-1:] or [f"exit code {status}"])[0]
    return f"the program of bundle '{bundle.folder}' failed: {reason}"

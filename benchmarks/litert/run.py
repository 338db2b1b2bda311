"""A file of LiteRT on an emulated board: what it computes, and what that costs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from litert.board import Board
from reconvene.backends.estimate.blocks import blocks_of, steady
from reconvene.backends.estimate.board import board_of, core_of, levels_of
from reconvene.backends.estimate.cost import Cost, costs_of, nothing
from reconvene.backends.estimate.counting import CacheLevel, count_instructions, count_misses, new_misses
from reconvene.backends.machines.targets import Target
from reconvene.frontend.base.errors import InputError

__all__ = ["BESIDE", "ENGINE", "costs_of_calls", "cycles_of_calls", "result_of"]

ENGINE, BESIDE = "LiteRT", "beside"
"""Whose code ran: the engine's own library, with its kernels; and Python, numpy and the C library."""

_LIBRARY = "libpywrap_litert_common.so"
_RUNNER = Path(__file__).resolve().with_name("runner.py")
_FEW, _MANY = 1, 3
"""Calls of the two runs whose difference is counted, after one that packs the weights."""

Array = np.ndarray[Any, Any]


def result_of(model: Path, given: Array, board: Board) -> Array:
    """What LiteRT computes of the images `given`, ``(N, H, W, C)``.

    Raises:
        InputError: it fails, or does not use XNNPACK.
    """
    files = _files(model)
    np.save(files[0], given)
    command = board.python([str(_RUNNER), str(model), "0", *files])
    done = subprocess.run([*command.emulator, *command.program], capture_output=True, text=True, check=False)
    if done.returncode or "XNNPACK" not in done.stderr:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InputError(f"LiteRT under QEMU failed: {lines[-1][:300]}")
    found: Array = np.load(files[1])
    return found


def costs_of_calls(model: Path, board: Board, target: Target) -> tuple[Cost, Cost]:
    """What one call costs in `ENGINE`'s code, and in all other; on the input that `result_of` was given before.

    Raises:
        InputError: as for `estimate_bundle`.
    """
    return _costs(model, _files(model), board, target, levels_of(target))


def cycles_of_calls(model: Path, board: Board, target: Target) -> float:
    """The cycles of `ENGINE`'s code alone, whatever the inputs."""
    return _costs(model, (), board, target, ())[0].cycles


def _costs(
    model: Path, files: Sequence[str], board: Board, target: Target, levels: Sequence[CacheLevel]
) -> tuple[Cost, Cost]:
    commands = [board.python([str(_RUNNER), str(model), str(calls), *files]) for calls in (_FEW, _MANY)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [pool.submit(count_instructions, command) for command in commands]
        reads = [pool.submit(count_misses, command, levels) for command in commands if levels]
        fewer, more = (run.result() for run in runs)
        misses = new_misses(reads[1].result(), reads[0].result()) if levels else {}
    found = costs_of(blocks_of(steady(more, fewer)), misses, _owner, core_of(target), board_of(target), BESIDE)
    return _one_call(found.get(ENGINE, nothing(ENGINE))), _one_call(found.get(BESIDE, nothing(BESIDE)))


def _files(model: Path) -> tuple[str, str]:
    """Of the input and of the result."""
    return str(model.with_suffix(".given.npy")), str(model.with_suffix(".found.npy"))


def _owner(file: str, _: int) -> str:
    return ENGINE if Path(file).name == _LIBRARY else BESIDE


def _one_call(cost: Cost) -> Cost:
    """Of the calls that the two runs differ in, one."""
    calls = _MANY - _FEW
    return replace(
        cost,
        instructions=cost.instructions // calls,
        multiply_adds=cost.multiply_adds // calls,
        cycles=cost.cycles / calls,
        throughput_cycles=cost.throughput_cycles / calls,
        floor_cycles=cost.floor_cycles / calls,
        l1_misses=cost.l1_misses // calls,
        last_misses=cost.last_misses // calls,
        memory_bytes=cost.memory_bytes // calls,
        milliseconds=None if cost.milliseconds is None else cost.milliseconds / calls,
    )

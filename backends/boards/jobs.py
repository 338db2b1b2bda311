"""Running and timing a bundle on a board.

A bundle with a library (``--runtime wheel`` or ``python``) is loaded into the server and run by TVM's virtual machine
there, which every server of TVM's can do. One with only a program (``static``, ``none``) is uploaded as that, and run by
our server: what is timed is what will be shipped.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import tvm
from tvm import relax

from ...frontend.errors import InputError
from ..bundle import Bundle
from ..execution import failure
from ..measure import Timing, timing
from ..signature import checked_inputs
from ..weights import map_weights
from .errors import BoardError
from .place import Place
from .session import Board, Done, Limits, on_board

__all__ = ["benchmark_on_board", "run_on_board"]

_LIBRARY = "model.so"
_KERNEL_THREADS = "runtime.config_threadpool"
_STRONGEST_CORES_FIRST = 1


def run_on_board(
    bundle: Bundle, inputs: Sequence[Any], place: Place, threads: int | None = None, limits: Limits | None = None
) -> Done[tuple[torch.Tensor, ...]]:
    """The bundle's outputs for torch tensors or numpy arrays, computed at `place`.

    Raises:
        InputError: the inputs are not what the model takes, or the bundle holds nothing that a board could run.
        BoardError: as `on_board`; or the board is no match for the bundle, or the program fails there.
    """
    arrays = [tensor.numpy() for tensor in checked_inputs(bundle.inputs, inputs)]
    _check_runnable(bundle)

    def job(board: Board) -> tuple[torch.Tensor, ...]:
        board.check(bundle.target)
        return (
            _run_library(board, bundle, arrays, threads)
            if _has_library(bundle)
            else _run(board, bundle, arrays, threads)
        )

    return on_board(place, job, limits)


def benchmark_on_board(
    bundle: Bundle,
    repeat: int,
    place: Place,
    warmup: int = 5,
    threads: int | None = None,
    limits: Limits | None = None,
) -> Done[Timing]:
    """Wall time of the bundle's runs on random inputs at `place`, taken by the board's own clock.

    Raises:
        InputError: as `run_on_board`.
    """
    _check_runnable(bundle)

    def job(board: Board) -> Timing:
        board.check(bundle.target)
        if _has_library(bundle):
            return _time_library(board, bundle, repeat, warmup, threads)
        words = ["--bench", str(repeat), "--warmup", str(warmup), "--json", *_threads(threads)]
        return Timing(**json.loads(_program(board, bundle, words)))

    return on_board(place, job, limits)


def _has_library(bundle: Bundle) -> bool:
    return _LIBRARY in bundle.files and bundle.arena is not None


def _check_runnable(bundle: Bundle) -> None:
    if not _has_library(bundle) and (bundle.program is None or bundle.target.bare):
        raise InputError(f"bundle '{bundle.folder}' holds nothing that a board's server could run; compile it for one")


# ---- programs


def _run(
    board: Board, bundle: Bundle, arrays: Sequence[np.ndarray[Any, Any]], threads: int | None
) -> tuple[torch.Tensor, ...]:
    names = [board.upload(_npy(array), ".npy") for array in arrays]
    _program(board, bundle, [*names, "-o", ".", *_threads(threads)])
    outputs = [f"output{index}.npy" for index in range(len(bundle.outputs))]
    found = [np.load(io.BytesIO(bytes(board.remote.download(name))), allow_pickle=False) for name in outputs]
    for name in outputs:
        board.remote.remove(name)
    return tuple(torch.from_numpy(array) for array in found)


def _program(board: Board, bundle: Bundle, words: Sequence[str]) -> str:
    """What the bundle's program prints on the board."""
    assert bundle.program is not None
    run = _function(board, "reconvene.run")
    if run is None:
        raise BoardError(
            f"board '{board.name}' has TVM's own server, which loads libraries but runs no programs; compile with"
            " --runtime python, or start reconvene-server there"
        )
    name = board.upload(bundle.program)
    answer = str(run(name, int(board.session_seconds), *words))
    head, _, rest = answer.partition("\n")
    status, size = map(int, head.split())
    if status:
        raise BoardError(f"board '{board.name}': {failure(bundle, status, rest[size:])}")
    return rest[:size]


def _threads(threads: int | None) -> list[str]:
    return [] if threads is None else ["--threads", str(threads)]


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


# ---- libraries


def _run_library(
    board: Board, bundle: Bundle, arrays: Sequence[np.ndarray[Any, Any]], threads: int | None
) -> tuple[torch.Tensor, ...]:
    machine = _machine(board, bundle, arrays, threads)
    machine.invoke_stateful("main")
    found = machine.get_outputs("main")
    tensors = [found] if isinstance(found, tvm.runtime.Tensor) else list(found)
    return tuple(torch.from_numpy(tensor.numpy()) for tensor in tensors)


def _time_library(board: Board, bundle: Bundle, repeat: int, warmup: int, threads: int | None) -> Timing:
    generator = np.random.default_rng(0)
    arrays = [
        generator.standard_normal(spec.shape).astype(spec.dtype)
        if spec.dtype.startswith("float")
        else np.zeros(spec.shape, spec.dtype)
        for spec in bundle.inputs
    ]
    machine = _machine(board, bundle, arrays, threads)

    def timed(count: int) -> list[float]:
        device = board.remote.cpu(0)
        found = machine.time_evaluator("invoke_stateful", device, number=1, repeat=count)("main")
        return [seconds * 1e3 for seconds in found.results]

    if warmup:
        timed(warmup)
    batch = bundle.inputs[0].shape[0] if bundle.inputs and bundle.inputs[0].shape else 1
    return timing(timed(repeat), threads or bundle.threads or 1, batch)


def _machine(
    board: Board, bundle: Bundle, arrays: Sequence[np.ndarray[Any, Any]], threads: int | None
) -> relax.VirtualMachine:
    """TVM's virtual machine on the board, with the model's inputs, weights, and memory for the values between kernels."""
    if bundle.versions.get("apache-tvm") != board.about.get("tvm", bundle.versions.get("apache-tvm")):
        raise BoardError(
            f"board '{board.name}' serves TVM {board.about['tvm']}, but bundle '{bundle.folder}' was compiled with"
            f" {bundle.versions.get('apache-tvm')}; compile it again"
        )
    assert bundle.arena is not None
    device = board.remote.cpu(0)
    machine = relax.VirtualMachine(board.load(bundle.folder / _LIBRARY), device)
    board.call(_KERNEL_THREADS, _STRONGEST_CORES_FIRST, threads or bundle.threads or 1)
    there = [tvm.runtime.tensor(array, device) for array in (*arrays, *_weights(bundle))]
    # Each in memory of its own: an arena's tensors share theirs, which RPC has no form for.
    values = [tvm.runtime.empty(slot.shape, slot.dtype, device) for slot in bundle.arena.slots]
    machine.set_input("main", *there, *values)
    return machine


def _weights(bundle: Bundle) -> list[np.ndarray[Any, Any]]:
    return [tensor.numpy() for tensor in map_weights(bundle.weights, bundle.folder)]


def _function(board: Board, name: str) -> Callable[..., Any] | None:
    try:
        return board.remote.get_function(name)  # type: ignore[no-any-return]
    except (AttributeError, tvm.error.RPCError):
        return None

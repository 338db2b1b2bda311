"""Running and timing a bundle on a board.

A bundle with a library (``--runtime wheel`` or ``python``) is loaded into the server and run by TVM's virtual machine
there, which every server of TVM's can do. One with only a program (``static``, ``none``) is uploaded as that, and run by
our server: what is timed is what will be shipped.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import tvm
from tvm import relax

from ...frontend.base.array_files import parse_npy
from ...frontend.base.arrays import as_tensor
from ...frontend.base.errors import InputError
from ..bundles.execution import failure, output_files, program_timing
from ..bundles.listed_files import read_listed
from ..bundles.manifest import Bundle
from ..code.weights import map_weights
from ..dtypes import tensor_bytes
from ..measure import Timing, timing
from ..signature import TensorSpec, checked_inputs
from ..state import state_names
from .errors import BoardError, printable
from .place import Place
from .session import Board, Done, Limits, answering, checked_seconds, on_board

__all__ = ["benchmark_on_board", "run_in_turn_on_board", "run_on_board"]

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
    done = run_in_turn_on_board(bundle, [inputs], place, threads, limits)
    return replace(done, value=done.value[0])  # type: ignore[type-var, return-value, arg-type]


def run_in_turn_on_board(
    bundle: Bundle,
    calls: Sequence[Sequence[Any]],
    place: Place,
    threads: int | None = None,
    limits: Limits | None = None,
) -> Done[list[tuple[torch.Tensor, ...]]]:
    """The outputs of several calls, one after the other, in one session: what the model keeps, each finds as the one before
    left it. If the board is lost, another begins with the first.

    Raises:
        InputError: as `run_on_board`; or the model has state, and is a library.
    """
    sets = [[tensor.numpy() for tensor in checked_inputs(bundle.inputs, inputs)] for inputs in calls]
    _check_runnable(bundle)
    if bundle.state and len(sets) > 1 and _has_library(bundle):
        # TVM's machine copies all that it is given over RPC at every call, the state too.
        raise InputError(
            f"the model of bundle '{bundle.folder}' keeps {state_names(bundle.state)}, and a library on a board forgets it"
            " after a call; compile with --runtime static"
        )

    def job(board: Board) -> list[tuple[torch.Tensor, ...]]:
        board.check(bundle.target)
        run = _run_library if _has_library(bundle) else _run
        return run(board, bundle, sets, threads)

    return on_board(place, job, limits, _answer_bytes(bundle))


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
        return program_timing(bundle, _program(board, bundle, words))

    return on_board(place, job, limits)


def _has_library(bundle: Bundle) -> bool:
    return _LIBRARY in bundle.files and bundle.arena is not None


def _check_runnable(bundle: Bundle) -> None:
    if not _has_library(bundle) and (bundle.program is None or bundle.target.bare):
        raise InputError(f"bundle '{bundle.folder}' holds nothing that a board's server could run; compile it for one")


# ---- programs


def _run(
    board: Board, bundle: Bundle, sets: Sequence[Sequence[np.ndarray[Any, Any]]], threads: int | None
) -> list[tuple[torch.Tensor, ...]]:
    names = [board.upload(_npy(array), ".npy") for arrays in sets for array in arrays]
    _program(board, bundle, [*names, "-o", ".", *_threads(threads)])
    found = []
    for outputs in output_files(len(sets), len(bundle.outputs)):
        pairs = zip(bundle.outputs, outputs, strict=True)
        found.append(tuple(_output(board, spec, board.download(name)) for spec, name in pairs))
        with answering(board.name):
            for name in outputs:
                board.remote.remove(name)
    return found


def _program(board: Board, bundle: Bundle, words: Sequence[str]) -> str:
    """What the bundle's program prints on the board."""
    assert bundle.program is not None
    run = _function(board, "reconvene.run")
    if run is None:
        raise BoardError(
            f"board '{board.name}' has TVM's own server, which loads libraries but runs no programs; compile with"
            " --runtime python, or start reconvene-server there"
        )
    name = board.upload(_listed(bundle, bundle.program.name))
    with answering(board.name):
        answer = str(run(name, int(board.session_seconds), *words))
    head, _, rest = answer.partition("\n")
    try:
        status, size = map(int, head.split())
    except ValueError:
        raise BoardError(f"board '{board.name}' answers what makes no sense: {printable(head)}") from None
    if status:
        raise BoardError(f"board '{board.name}': {printable(failure(bundle, status, rest[size:]))}")
    return rest[:size]


def _output(board: Board, spec: TensorSpec, content: bytes) -> torch.Tensor:
    """The array of a ``.npy`` file that the board sent, if it is what the model gives."""
    array = parse_npy(content, f"cannot read what board '{board.name}' computed")
    if (array.shape, str(array.dtype)) != (spec.shape, spec.dtype):
        raise BoardError(f"board '{board.name}' gives an output '{spec.name}' that is not {spec}")
    return as_tensor(array)


def _threads(threads: int | None) -> list[str]:
    return [] if threads is None else ["--threads", str(threads)]


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


# ---- libraries


def _run_library(
    board: Board, bundle: Bundle, sets: Sequence[Sequence[np.ndarray[Any, Any]]], threads: int | None
) -> list[tuple[torch.Tensor, ...]]:
    machine, rest = _machine(board, bundle, threads)
    found = []
    for arrays in sets:
        _give(machine, board, arrays, rest)
        with answering(board.name):
            machine.invoke_stateful("main")
            outputs = machine.get_outputs("main")
            tensors = [outputs] if isinstance(outputs, tvm.runtime.Tensor) else list(outputs)
        if len(tensors) != len(bundle.outputs):
            raise BoardError(f"board '{board.name}' gives {len(tensors)} outputs instead of {len(bundle.outputs)}")
        pairs = zip(bundle.outputs, tensors, strict=True)
        found.append(tuple(_there(board, spec, tensor) for spec, tensor in pairs))
    return found


def _there(board: Board, spec: TensorSpec, tensor: Any) -> torch.Tensor:
    """A tensor on the board, if it is what the model gives."""
    with answering(board.name):
        if (tuple(map(int, tensor.shape)), str(tensor.dtype)) != (spec.shape, spec.dtype):
            raise BoardError(f"board '{board.name}' gives an output '{spec.name}' that is not {spec}")
        return torch.from_numpy(tensor.numpy())


def _listed(bundle: Bundle, name: str) -> bytes:
    """A file of the bundle as it was when the bundle was opened; it may have been exchanged since."""
    return read_listed(bundle.folder, name, bundle.files[name])


def _answer_bytes(bundle: Bundle) -> int:
    """What one answer may have: an output, or the file that it is in."""
    return max((tensor_bytes(spec.shape, spec.dtype) for spec in bundle.outputs), default=0)


def _time_library(board: Board, bundle: Bundle, repeat: int, warmup: int, threads: int | None) -> Timing:
    generator = np.random.default_rng(0)
    arrays = [
        generator.standard_normal(spec.shape).astype(spec.dtype)
        if spec.dtype.startswith("float")
        else np.zeros(spec.shape, spec.dtype)
        for spec in bundle.inputs
    ]
    machine, rest = _machine(board, bundle, threads)
    _give(machine, board, arrays, rest)

    def timed(count: int) -> list[float]:
        with answering(board.name):
            device = board.remote.cpu(0)
            found = machine.time_evaluator("invoke_stateful", device, number=1, repeat=count)("main")
        return [seconds * 1e3 for seconds in checked_seconds(board, found.results)]

    if warmup:
        timed(warmup)
    batch = bundle.inputs[0].shape[0] if bundle.inputs and bundle.inputs[0].shape else 1
    return timing(timed(repeat), threads or bundle.threads or 1, batch)


def _machine(board: Board, bundle: Bundle, threads: int | None) -> tuple[relax.VirtualMachine, list[Any]]:
    """TVM's virtual machine on the board, and what it takes after the inputs: state, weights, and memory for the values
    between kernels.
    """
    if bundle.versions.get("apache-tvm") != board.about.get("tvm", bundle.versions.get("apache-tvm")):
        raise BoardError(
            f"board '{board.name}' serves TVM {board.about['tvm']}, but bundle '{bundle.folder}' was compiled with"
            f" {bundle.versions.get('apache-tvm')}; compile it again"
        )
    assert bundle.arena is not None
    library = board.load(_listed(bundle, _LIBRARY))
    with answering(board.name):
        device = board.remote.cpu(0)
        machine = relax.VirtualMachine(library, device)
    board.call(_KERNEL_THREADS, _STRONGEST_CORES_FIRST, threads or bundle.threads or 1)
    arrays = [*(entry.initial.numpy() for entry in bundle.state), *_weights(bundle)]
    with answering(board.name):
        there = [tvm.runtime.tensor(array, device) for array in arrays]
        # Each in memory of its own: an arena's tensors share theirs, which RPC has no form for.
        values = [tvm.runtime.empty(slot.shape, slot.dtype, device) for slot in bundle.arena.slots]
    return machine, [*there, *values]


def _give(
    machine: relax.VirtualMachine, board: Board, arrays: Sequence[np.ndarray[Any, Any]], rest: Sequence[Any]
) -> None:
    with answering(board.name):
        device = board.remote.cpu(0)
        machine.set_input("main", *(tvm.runtime.tensor(array, device) for array in arrays), *rest)


def _weights(bundle: Bundle) -> list[np.ndarray[Any, Any]]:
    return [tensor.numpy() for tensor in map_weights(bundle.weights, bundle.folder)]


def _function(board: Board, name: str) -> Callable[..., Any] | None:
    try:
        return board.remote.get_function(name)  # type: ignore[no-any-return]
    except (AttributeError, tvm.error.RPCError):
        return None

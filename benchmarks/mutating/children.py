"""Processes that start with the libraries loaded and nothing of reconvene: forked, with a time limit.

Importing torch and TVM takes longer than most tests; a forked process has them at once. What the child imports of
reconvene comes from the copy, mutated or not.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

LIBRARIES = (
    "numpy scipy.optimize networkx torch torch.export torch.fx torch._dynamo torch._inductor.decomposition "
    "torch.onnx tvm tvm.relax tvm.relax.frontend.torch tvm.s_tir tvm.topi tvm.script safetensors.torch pytest coverage "
    "hypothesis PIL.Image"
).split()
MEMORY = 8 << 30
"""Bytes of address space of a child: a mutant may ask for any amount."""


def load_libraries() -> None:
    """Imports what the tests need; what is not installed they skip."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def run_child(work: Callable[[], int], folder: Path, seconds: float) -> int | None:
    """What `work` returned, or how it ended as ``waitstatus_to_exitcode`` says; None when it ran past `seconds`.

    It runs with ``folder/tree`` as its place and ``folder/scratch``, emptied before and after, for all it writes elsewhere.
    What it prints goes to ``folder/log``. All processes that it started end with it.
    """
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _be_child(work, folder, scratch)
    try:
        return _wait(pid, seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        shutil.rmtree(scratch, ignore_errors=True)


def _wait(pid: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
    except BaseException:
        _kill(pid)
        raise
    _kill(pid)
    return None


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _end_with_parent() -> None:
    """Where the system can: so that nothing goes on with the copy when the program is killed."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _be_child(work: Callable[[], int], folder: Path, scratch: Path) -> None:
    code = 70
    try:
        _end_with_parent()
        os.setpgid(0, 0)  # Of the same session, so that it is as nice as its parent.
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        tree = folder / "tree"
        os.chdir(tree)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("reconvene", "tests")]:
            del sys.modules[name]  # Of whoever started this.
        sys.path[:0] = [str(tree), str(tree / "benchmarks")]
        # Bytecode is told apart by seconds and size: that of the last mutant could be taken for this one's.
        sys.dont_write_bytecode = True
        os.environ.update(
            PYTHONPATH=f"{tree}:{tree / 'benchmarks'}",
            PYTHONDONTWRITEBYTECODE="1",
            XDG_CACHE_HOME=str(scratch / "cache"),
            XDG_STATE_HOME=str(scratch / "state"),
            TMPDIR=str(scratch),
        )
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

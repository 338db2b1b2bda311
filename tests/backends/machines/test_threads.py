"""Compiled models called from several threads and processes: the answers are those of one thread."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import reconvene
from reconvene.backends.built import Built
from reconvene.backends.compile import compile
from reconvene.backends.machines.threads import available_threads, on_threads
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.base.turns import new_turn

SEVERAL = min(2, available_threads())


@pytest.fixture(scope="module")
def inputs() -> list[torch.Tensor]:
    return list(torch.randn(8, 1, 3, 24, 24, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def built(inputs: list[torch.Tensor]) -> Built:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3)]
    return compile(nn.Sequential(*layers).eval(), (inputs[0],))


@pytest.fixture(scope="module")
def answers(built: Built, inputs: list[torch.Tensor]) -> list[np.ndarray]:
    return [built.run(x).numpy() for x in inputs]


def right(model: Built, inputs: list[torch.Tensor], answers: list[np.ndarray], rounds: int = 10) -> bool:
    """Whether every call gives what it gave before, to the bit."""
    calls = [(x, y) for _ in range(rounds) for x, y in zip(inputs, answers, strict=True)]
    return all(np.array_equal(model.run(x).numpy(), y) for x, y in calls)


@pytest.mark.parametrize("threads", sorted({1, SEVERAL}))
def test_threads_that_share_a_model_take_turns(
    built: Built, inputs: list[torch.Tensor], answers: list[np.ndarray], threads: int
) -> None:
    shared = replace(built, threads=threads)
    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(lambda _: right(shared, inputs, answers), range(6)))


@pytest.mark.parametrize("threads", sorted({1, SEVERAL}))
def test_clones_run_at_the_same_time_on_the_same_weights(
    built: Built, inputs: list[torch.Tensor], answers: list[np.ndarray], threads: int
) -> None:
    clones = [replace(built, threads=threads).clone() for _ in range(4)]
    assert all(clone.weights is built.weights and clone.module is built.module for clone in clones)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda clone: right(clone, inputs, answers), clones))


def test_one_call_does_not_hold_up_a_clone(built: Built, inputs: list[torch.Tensor], answers: list[np.ndarray]) -> None:
    during_a_call = built._turn
    with during_a_call, ThreadPoolExecutor(1) as pool:
        assert pool.submit(right, built.clone(), inputs, answers).result(timeout=20)


def test_threads_that_end_leave_none_of_tvms_behind(built: Built, inputs: list[torch.Tensor]) -> None:
    def tasks() -> int:
        return len(os.listdir("/proc/self/task"))

    several = replace(built, threads=SEVERAL)
    several.run(inputs[0])
    before = tasks()
    for _ in range(20):
        for model in (built, several):
            thread = threading.Thread(target=model.run, args=(inputs[0],))
            thread.start()
            thread.join()
    assert tasks() <= before + 1


def exit_code(work: Callable[[], bool]) -> int:
    """How a forked process ends that does `work`: 0 if it is right."""
    child = os.fork()
    if not child:
        code = 2
        signal.alarm(30)
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("threads", sorted({1, SEVERAL}))
def test_a_forked_process_calls_on(
    built: Built, inputs: list[torch.Tensor], answers: list[np.ndarray], threads: int
) -> None:
    model = replace(built, threads=threads)
    assert right(model, inputs, answers, 1)
    assert exit_code(lambda: right(model, inputs, answers, 1)) == 0
    assert exit_code(lambda: right(model.clone(), inputs, answers, 1)) == 0

    def in_threads() -> bool:
        with ThreadPoolExecutor(3) as pool:
            return all(pool.map(lambda _: right(model, inputs, answers, 2), range(3)))

    assert exit_code(in_threads) == 0
    assert exit_code(lambda: exit_code(in_threads) == 0) == 0, "a fork of a fork"
    assert right(model, inputs, answers, 1)


def test_a_fork_in_the_middle_of_calls(built: Built, inputs: list[torch.Tensor], answers: list[np.ndarray]) -> None:
    """It waits for them, so that the new process finds a lock that is free and memory that nobody writes."""
    stop = threading.Event()

    def calls() -> bool:
        while not stop.is_set():
            if not right(built, inputs, answers, 1):
                return False
        return True

    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(calls) for _ in range(2)]
        assert [exit_code(lambda: right(built, inputs, answers, 1)) for _ in range(5)] == [0] * 5
        stop.set()
        assert all(other.result(timeout=20) for other in others)


shared: Built | None = None
"""For processes of a pool, which are forked with it."""


def answer(x: np.ndarray) -> np.ndarray:
    assert shared is not None
    return shared.run(x).numpy()


def test_a_pool_of_processes(built: Built, inputs: list[torch.Tensor], answers: list[np.ndarray]) -> None:
    global shared
    shared = replace(built, threads=SEVERAL)
    shared.run(inputs[0])
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(answer, [x.numpy() for x in inputs], timeout=60))
    assert all(np.array_equal(one, other) for one, other in zip(found, answers, strict=True))


def test_a_forked_process_that_ends_as_any_other() -> None:
    """With the interpreter's own end, which tears down what other threads had; in a program of its own, for that reason."""
    program = f"""
import os, signal, sys, torch, reconvene
x = torch.randn(1, 3, 8, 8)
built = reconvene.compile(torch.nn.Conv2d(3, 4, 3).eval(), (x,), threads={SEVERAL})
wanted = built.run(x)
if not (child := os.fork()):
    signal.alarm(30)
    sys.exit(0 if built.run(x).equal(wanted) and built.clone().run(x).equal(wanted) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0


@pytest.mark.skipif(SEVERAL == 1, reason="with one core TVM has no pools")
def test_compiling_leaves_no_pool_of_tvms_behind(built: Built) -> None:
    """Its idle threads, which a process waits for at its end, look for work before they sleep: minutes on a busy machine."""
    network = nn.LSTM(4, 8, num_layers=2, batch_first=True).eval()

    def more_tasks() -> int:
        before = len(os.listdir("/proc/self/task"))
        compile(network, (torch.randn(1, 3, 4),), "cortex-m7", check=False, cache=False)
        return len(os.listdir("/proc/self/task")) - before

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(more_tasks).result() == 0


def test_threads_that_compile_take_turns(inputs: list[torch.Tensor]) -> None:
    """torch.export has one state for the whole process."""

    def right_at_once(width: int) -> bool:
        layers = [nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 2, 3)]
        network = nn.Sequential(*layers).eval()
        found = reconvene.compile(network, (inputs[0],)).run(inputs[0])
        return torch.allclose(found, network(inputs[0]), atol=1e-4)

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(right_at_once, (3, 4, 5)))


def test_what_goes_to_another_process_by_pickling_is_refused(built: Built) -> None:
    with pytest.raises(InputError, match=r"cannot be pickled; export\(\) it, and load_bundle\(\) it"):
        pickle.dumps(built)


def test_a_deep_copy_is_a_clone(built: Built, inputs: list[torch.Tensor], answers: list[np.ndarray]) -> None:
    copied = copy.deepcopy(built)
    assert copied.weights is built.weights
    assert right(copied, inputs, answers, 1)


def test_work_on_threads_gives_values_and_errors() -> None:
    here = threading.current_thread()
    assert on_threads(1, threading.current_thread) is here
    with pytest.raises(ZeroDivisionError):
        on_threads(SEVERAL, lambda: 1 // 0)
    assert on_threads(SEVERAL, lambda: on_threads(1, lambda: on_threads(SEVERAL, lambda: 7))) == 7
    with pytest.raises(InputError, match=f"threads must be between 1 and {available_threads()}, got 0"):
        on_threads(0, lambda: None)


@pytest.mark.skipif(SEVERAL == 1, reason="one thread's work is done where it is asked for")
def test_an_interruption_waits_for_the_work() -> None:
    """Its memory is in use until then."""
    ended: list[float] = []

    def work() -> None:
        time.sleep(0.3)
        ended.append(time.monotonic())

    def interrupted(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, interrupted)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(TimeoutError):
            on_threads(SEVERAL, work)
        assert ended
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_turn_can_be_taken_again_by_who_has_it_and_by_nobody_else() -> None:
    turn = new_turn()
    with turn, turn, ThreadPoolExecutor(1) as pool:
        assert not pool.submit(turn.acquire, timeout=0.05).result()

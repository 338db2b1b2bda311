"""One variant in memory: loaded with all checks, warmed, run, and unloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from ...backends.built import Built, load_bundle
from ...backends.dtypes import torch_dtype
from ...backends.signature import TensorSpec
from ...backends.state import state_names
from ...frontend.base.errors import InputError
from ..example_inputs import random_input
from ..portfolio.manifest import Portfolio, Variant, listed_bundle
from .memory import available_memory, release_memory

__all__ = ["Resident", "load_variant"]

Arrays = Sequence[np.ndarray[Any, Any]]

_WARMING_RUNS = 2
"""The first call allocates its buffers and reads every weight; the second one finds them."""


class Resident:
    """A variant that answers.

    Attributes:
        variant: what the portfolio says of it.
        load_seconds, warm_seconds: what it took to get it here.
    """

    def __init__(self, variant: Variant, built: Built, load_seconds: float, warm_seconds: float) -> None:
        self.variant = variant
        self.load_seconds = load_seconds
        self.warm_seconds = warm_seconds
        self._built: Built | None = built

    def run(self, inputs: Arrays) -> tuple[np.ndarray[Any, Any], ...]:
        """The outputs for arrays of the portfolio's shapes and dtypes; one call at a time."""
        assert self._built is not None, "the variant was unloaded"
        return _outputs(self._built, inputs)

    def unload(self) -> None:
        """Gives its memory back. No call may be under way."""
        self._built = None
        release_memory()


def load_variant(
    portfolio: Portfolio,
    variant: Variant,
    target: str = "host",
    threads: int = 1,
    room: Callable[[], int] = available_memory,
    private: bool = False,
) -> Resident:
    """Loads `variant`, after its files were checked, and runs it on generated inputs.

    Args:
        target: whose bundle is taken.
        threads: what it will run with. The runs here take one, so that they disturb a variant that serves the least.
        room: gives the bytes that can be taken.
        private: whether its files are copied into sealed memory, as `load_bundle` says.

    Raises:
        InputError: a file is missing, damaged or another one, there is too little memory, the outputs are not what the
            portfolio says, or the variant keeps state: requests of all clients would share it.
    """
    started = perf_counter()
    _check_room(variant, room())
    folder = listed_bundle(portfolio, variant, target)
    built = load_bundle(folder, private=private, manifest_sha256=variant.manifest_sum(target).sha256)
    for what, found, wanted in (
        ("inputs", built.inputs, portfolio.inputs),
        ("outputs", built.outputs, portfolio.outputs),
    ):
        if found != wanted:
            raise InputError(f"the {what} of bundle '{folder}' are not those of its portfolio; build it again")
    if built.state:
        raise InputError(
            f"variant '{variant.name}' keeps {state_names(built.state)} from one call to the next, which requests of several"
            " clients would share; run it for one stream: reconvene run, or the bundle's program with --serve"
        )
    loaded = perf_counter()
    specs = enumerate(portfolio.inputs)
    inputs = [random_input(spec.shape, torch_dtype(spec.dtype), seed).numpy() for seed, spec in specs]
    for _ in range(_WARMING_RUNS):
        _check_outputs(variant, portfolio.outputs, _outputs(replace(built, threads=1), inputs))
    return Resident(variant, replace(built, threads=threads), loaded - started, perf_counter() - loaded)


def _outputs(built: Built, inputs: Arrays) -> tuple[np.ndarray[Any, Any], ...]:
    return tuple(tensor.numpy() for tensor in built.run_tensors(inputs))


def _check_room(variant: Variant, room: int) -> None:
    needed = max(variant.bytes, variant.peak_memory_bytes)
    if needed > room:
        raise InputError(
            f"variant '{variant.name}' needs {needed >> 20} MiB and {room >> 20} MiB are free; free some, or choose a"
            " smaller variant"
        )


def _check_outputs(variant: Variant, specs: Sequence[TensorSpec], outputs: Arrays) -> None:
    found = [(array.shape, str(array.dtype)) for array in outputs]
    if found != [(spec.shape, spec.dtype) for spec in specs]:
        raise InputError(f"variant '{variant.name}' gives {found} instead of what its manifest says; build it again")

"""Where a bundle runs: in this process, as a program here, on an emulated board, or on one over the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...backends.bundles.execution import bundle_emulator
from ...backends.bundles.manifest import Bundle
from ...backends.dtypes import torch_dtype
from ...frontend.base.errors import InputError
from ..example_inputs import random_input

if TYPE_CHECKING:
    from ...backends.boards.session import Done
    from ...backends.machines.emulation import Emulator

__all__ = [
    "board_facts",
    "check_threads_of",
    "checked_place",
    "emulator_for",
    "example_inputs_of",
    "limits",
    "lost_lines",
]


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

"""The cost of a bundle's model, kernel by kernel."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from ..bundles.execution import bundle_emulator, write_inputs
from ..bundles.manifest import Bundle
from ..bundles.read import open_bundle
from ..state import described
from .blocks import blocks_of, steady
from .board import BoardModel, board_of, core_of, levels_of
from .core_model import CORES, Core
from .cost import Estimate, costs_of, nothing
from .counting import CacheLevel, Command, count_instructions, count_misses, new_misses
from .symbols import Symbols, kernel_name, symbols_by_address, symbols_of
from .tools import llvm_tool, version_of

__all__ = ["OTHER", "estimate_bundle"]

OTHER = "(runtime)"
"""What is not a kernel's: TVM's virtual machine, the program, the C library."""


def estimate_bundle(folder: str | os.PathLike[str]) -> Estimate:
    """What one pass of the model in `folder` costs on its target, one thread, with all memory touched before.

    The program runs under QEMU, with one pass and with two: their difference is one pass without loading.

    Raises:
        InputError: the folder is no bundle with a program, a tool is missing, LLVM has no model of the target's core,
            or the program fails.
    """
    bundle = open_bundle(folder)
    target = bundle.target
    core, levels, board = core_of(target), levels_of(target), board_of(target)
    if bundle.program is None:
        way = "a compiler for it makes one" if target.bare else "compile it with --runtime static"
        raise InputError(f"bundle '{folder}' holds no program; {way}")
    emulator = bundle_emulator(bundle).command
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        TemporaryDirectory(prefix="reconvene-estimate-") as work,
        stage("running under QEMU"),
    ):
        commands = [Command(emulator, *_call(bundle, passes, Path(work))) for passes in (1, 2)]
        reads = [pool.submit(count_misses, command, levels) for command in commands if levels]
        runs = [pool.submit(count_instructions, command) for command in commands]
        fewer, more = (run.result() for run in runs)
        misses = new_misses(reads[1].result(), reads[0].result()) if levels else {}
    with stage("modelling cycles"):
        found = costs_of(blocks_of(steady(more, fewer)), misses, _owner(bundle), core, board, OTHER)
    kernels = sorted((cost for name, cost in found.items() if name != OTHER), key=lambda cost: -cost.cycles)
    return Estimate(
        target=target.name,
        core=core,
        board=board,
        caches=tuple((level.bytes, level.ways) for level in levels),
        kernels=tuple(kernels),
        other=replace(found[OTHER], hottest=None) if OTHER in found else nothing(OTHER),
        tools={"qemu": version_of(emulator[0]), "llvm": version_of(llvm_tool("llvm-mca"))},
        limits=_limits(core, board, levels),
        state=tuple(described(bundle.state)),
    )


def _call(bundle: Bundle, passes: int, work: Path) -> tuple[tuple[str, ...], Path | None]:
    """The command for so many passes, and the folder to run it in, if that matters."""
    assert bundle.program is not None
    program = str(bundle.program.resolve())
    if bundle.target.bare:
        folder = work / str(passes)
        folder.mkdir()
        write_inputs(bundle, [[np.zeros(spec.shape, spec.dtype) for spec in bundle.inputs]] * passes, folder)
        return (program,), folder
    return (program, "--bench", str(passes), "--warmup", "0", "--threads", "1"), None


def _owner(bundle: Bundle) -> Callable[[str, int], str]:
    """Names the kernel that code belongs to. Kernels are in the bundle's own files, the program or ``model.so``."""
    tables: dict[str, Symbols] = {}
    if bundle.target.bare:
        assert bundle.program is not None
        # The emulator copies it to where it runs, so that its code is in no file.
        tables[""] = symbols_by_address(bundle.program)
    for name in bundle.files:
        path = (bundle.folder / name).resolve()
        table = symbols_of(path)
        if table.kernels:
            tables[str(path)] = table

    def owner(file: str, offset: int) -> str:
        table = tables.get(file)
        name = kernel_name(table.at(offset) or "") if table else ""
        return name if table and name in table.kernels else OTHER

    return owner


def _limits(core: Core, board: BoardModel, levels: tuple[CacheLevel, ...]) -> tuple[str, ...]:
    """What somebody who reads the figures must know, in two sentences."""
    sizes = " and ".join(f"{level.bytes // 1024} KiB" for level in levels)
    whose = f"LLVM {core.llvm}'s model of {core.model}"
    if core.model.lower().replace(" ", "-") != core.cpu:
        whose += f", which it takes for {core.cpu}"
    if core.cpu in CORES and not core.exact:
        whose += f" (newer versions have one of {CORES[core.cpu]})"
    clock = f"{board.clock_mhz} MHz" if board.clock_mhz else "an unknown clock, so without milliseconds"
    if not levels:
        return (
            f"Cycles are {whose}, for blocks of code that repeat, with code and data in memories of the chip that never wait.",
            f"Milliseconds are cycles at {clock}: no caches, no wait states of flash, no interrupts.",
        )
    return (
        f"Cycles are {whose}, for blocks of code that repeat, with every load a hit and every branch foreseen.",
        f"Misses are of caches of {sizes} without prefetching; milliseconds are the larger of cycles at {clock} and memory"
        f" at an assumed {board.memory_mb_s / 1000:g} GB/s, for each kernel: a lower bound, good for comparing.",
    )

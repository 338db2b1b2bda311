"""The README of a bundle: what the files are, and how to run them on the board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..artifact import Artifact
from ..code.weights import is_weights
from ..signature import TensorSpec
from ..state import is_initial

__all__ = ["readme"]

_FILES = {
    "run": "the program",
    "model.so": "the compiled model",
    "model.tar": "the compiled model as object files, not linked",
    "libtvm_runtime.so": "TVM's runtime",
    "libtvm_ffi.so": "TVM's runtime, its interface",
    "reconvene_model.h": "what a C program includes",
    "reconvene_model.c": "calls the kernels in turn, with all memory reserved in advance",
    "kernels.o": "the kernels",
    "weights.bin": "the weights",
    "weights.S": "makes weights.bin part of a program",
    "figures.json": "how much flash and RAM the model takes",
    "LICENSE": "the licence of reconvene's part",
    "NOTICE": "whose code is in these files, and what passing them on asks for",
    "LICENSES.txt": "the licences of the others",
    "sbom.cdx.json": "the bill of materials, in CycloneDX's format",
}


def readme(
    artifact: Artifact, runtime: str, names: Sequence[str], figures: Mapping[str, int | None] | None = None
) -> str:
    """Markdown for a bundle with the files `names`, and `figures` of the memory it takes."""
    target = artifact.target
    lines = [f"# A model for {target.description or target.name}", ""]
    lines += [f"Made by reconvene for `{target.name}` ({target.triple}, {target.cpu}).", ""]
    lines += _table("input", artifact.inputs) + _table("output", artifact.outputs)
    if artifact.state:
        lines += _table("kept from call to call", [entry.spec for entry in artifact.state])
    lines += ["| file | is |", "|---|---|"]
    lines += [f"| `{name}` | {_FILES[name]} |" for name in names if name in _FILES]
    if any(map(is_initial, names)):
        lines += ["| `state*.npy` | what is kept, before the first call; zeros where there is no file |"]
    if any(map(is_weights, names)):
        lines += ["| `weights-*.bin` | the weights, one file for each large tensor, named by their content |"]
    lines += ["| `manifest.json` | shapes, dtypes, target, versions, checksums |", "| `SHA256SUMS` | checksums |", ""]
    if "run" in names:
        lines += _program(runtime, bool(artifact.state)) if not target.bare else _emulated(artifact)
    if figures is not None and figures["flash"] is not None:
        lines += _memory(figures)
    if runtime == "none":
        lines += _sources(artifact)
    if runtime == "python":
        lines += [
            "Load it with `reconvene.backends.built.load_bundle`, or run it with `reconvene run FOLDER`.",
            "",
        ]
    return "\n".join(lines)


def _table(title: str, specs: Sequence[TensorSpec]) -> list[str]:
    rows = [f"| `{spec.name}` | {spec.dtype} | {' x '.join(map(str, spec.shape)) or 'scalar'} |" for spec in specs]
    if all(spec.codes is None for spec in specs):
        return [f"| {title} | dtype | shape |", "|---|---|---|", *rows, ""]
    rows = [f"{row} {spec.codes or ''} |" for row, spec in zip(rows, specs, strict=True)]
    return [f"| {title} | dtype | shape | the numbers |", "|---|---|---|---|", *rows, ""]


def _program(runtime: str, keeps: bool) -> list[str]:
    needs = {
        "wheel": "It needs Linux with glibc 2.27 or later and libstdc++, as every Raspberry Pi OS since 2019 has.",
    }.get(runtime, "It needs Linux, and nothing else: no Python, no libraries.")
    return [
        f"Copy the folder to the board. {needs}",
        "",
        "    sha256sum -c SHA256SUMS          # is everything as it was made?",
        "    ./run input.npy                  # writes output0.npy and so on, one for each output",
        "    ./run --bench 50                 # median, 10th and 90th percentile; --json for programs",
        "    ./run --serve < in > out         # .npy arrays in, .npy arrays out, until stdin ends",
        "    ./run --help",
        "",
        "Inputs are C-ordered `.npy` files (`numpy.save`), one for each input, in order; several sets are calls in turn.",
        *(["With `--serve`, a line `reset` between arrays makes what is kept what it was at first."] if keeps else []),
        "",
    ]


def _emulated(artifact: Artifact) -> list[str]:
    return [
        f"`run` is for QEMU's board {artifact.target.qemu_machine}, and shows that the sources work on this processor:",
        "",
        "    reconvene run BUNDLE --on qemu input.npy -o outputs.npz",
        "",
    ]


def _memory(figures: Mapping[str, int | None]) -> list[str]:
    return [
        f"The model takes {figures['flash']} bytes of flash, {figures['weights']} of them weights, and {figures['ram']} bytes"
        f" of RAM, of them {figures['arena']} for values between kernels, {figures['workspace']} within them and"
        f" {figures['state']} for what is kept from call to call.",
        "",
    ]


def _sources(artifact: Artifact) -> list[str]:
    compiler = artifact.target.link[0].replace("g++", "gcc") if artifact.target.link else "cc"
    return [
        "To make the model part of a C program of your own, include `reconvene_model.h`, call `reconvene_run`, and link",
        "",
        f"    {compiler} -O2 program.c reconvene_model.c weights.S kernels.o -lm",
        "",
        "from within this folder, with the options of your board. It needs no heap, no threads and no other library.",
        *(
            ["`reconvene_reset` makes what the model keeps what it was before the first call."]
            if artifact.state
            else []
        ),
        "`figures.json` has the bytes it takes: flash, RAM, and of these the weights, the arena (values between kernels)"
        " and the workspace (values within one). Stack, inputs, outputs and what kernels call of the C library come on top.",
        "",
    ]

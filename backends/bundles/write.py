"""A compiled model as a folder that can be copied to the machine it is for, and checked there.

The folder holds ``manifest.json``, ``README.md``, ``SHA256SUMS``, and by `Runtime`:

========  =====================================================================================
static    ``run``, a program that needs nothing of the machine
wheel     ``run``, ``model.so``, and the libraries of TVM's own wheels
none      C sources, objects and a header, without any runtime; and ``run`` made of them
python    ``model.so`` for TVM in Python, or ``model.tar``, objects that are not linked yet
========  =====================================================================================

``LICENSE``, ``NOTICE`` and, where code of others is inside, ``LICENSES.txt`` say whose that is (`notices`);
``sbom.cdx.json`` is the bill of materials (`sbom`).

Beside ``model.so`` and ``model.tar`` lie the weights, ``weights-*.bin`` (see `weights`), which are mapped.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from ...frontend.base.errors import InputError
from ...frontend.base.files import read_text, replacing_folder, sha256, write_sums
from ...frontend.base.json_text import parse_json
from ...frontend.data.facts import DataFacts
from ..artifact import Artifact
from ..code.weights import WeightPlace, write_weights
from ..machines.linkers import find_linker, link_shared
from ..machines.object_files import needed_glibc
from ..machines.targets import Target
from ..state import write_states
from .binding import Binding
from .listed_files import MANIFEST
from .manifest import FORMAT, PROGRAM, Runtime
from .materials import bundle_contents
from .notices import write_notices
from .program import model_objects, write_static_program, write_wheel_program
from .readme import readme
from .sbom import SBOM, write_sbom
from .standalone import write_standalone

__all__ = ["check_runtime", "write_bundle"]


def write_bundle(
    artifact: Artifact,
    folder: Path,
    *,
    link: bool = True,
    runtime: Runtime | None = None,
    certificate: Mapping[str, Any] | None = None,
    data: DataFacts | None = None,
) -> Path:
    """Writes `artifact` to `folder`, which appears complete or not at all; an older bundle there is replaced.

    Args:
        link: False leaves object files (``model.tar``) for a linker elsewhere.
        runtime: see the top of this file; by default ``python`` for the host, ``none`` for machines without an
            operating system, and ``static`` for all others.
        certificate: goes into the manifest.
        data: classes and colours of the images that the model was trained on; goes there, too.

    Raises:
        InputError: the folder holds something else, or cannot be written; or there is no compiler for the target, or it
            fails.
    """
    chosen = check_runtime(artifact.target, runtime, link)
    if folder.exists() and not _replaceable(folder):
        raise InputError(f"'{folder}' exists and is not a bundle; choose an empty or a new folder")
    try:
        json.dumps(certificate, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"the certificate cannot be written as JSON: {error}; give plain, finite values") from None
    with replacing_folder(folder) as temporary:
        said = _said(artifact, chosen, write_states(artifact.state, temporary), certificate, data)
        if not link:
            with model_objects(artifact) as objects:
                _archive(temporary / "model.tar", objects)
            places = write_weights(artifact.weights, temporary)
        else:
            places = _WRITERS[chosen](artifact, temporary, Binding(artifact.target, said, temporary))
        contents = bundle_contents(artifact.target, chosen, link, (temporary / PROGRAM).is_file())
        write_notices(contents, temporary, f"a model that reconvene compiled for {artifact.target.name}")
        text = readme(artifact, chosen, sorted((*_names(temporary), SBOM)), _figures(temporary))
        (temporary / "README.md").write_text(text, encoding="utf-8")
        write_sbom(artifact, contents, chosen, temporary)
        manifest = {**said, "weights": [asdict(place) for place in places], **_found(temporary)}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        write_sums(temporary)
    return folder


def check_runtime(target: Target, runtime: str | None, link: bool = True) -> Runtime:
    """What a bundle for `target` would hold. Raises InputError if that is not possible."""
    if not link:
        if runtime not in (None, "python"):
            raise InputError(f"runtime '{runtime}' cannot be left unlinked; leave out one of the two")
        return "python"
    if runtime is None:
        if target.name == "host":
            return "python"
        return "none" if target.bare else "static"
    if runtime not in _WRITERS:
        raise InputError(f"unknown runtime '{runtime}'; choose from {', '.join(_WRITERS)}")
    if target.bare and runtime != "none":
        raise InputError(f"'{target.name}' has no operating system to run TVM's runtime on; use --runtime none")
    return runtime  # type: ignore[return-value]


def _write_library(artifact: Artifact, folder: Path, binding: Binding) -> tuple[WeightPlace, ...]:
    linker = find_linker(artifact.target)
    places = write_weights(artifact.weights, folder)
    with model_objects(artifact) as objects:
        link_shared(linker, folder / "model.so", [*objects, *binding.sources(objects[0].parent, places)])
    return places


_WRITERS: dict[str, Callable[[Artifact, Path, Binding], tuple[WeightPlace, ...]]] = {
    "static": write_static_program,
    "wheel": write_wheel_program,
    "none": write_standalone,
    "python": _write_library,
}
"""What writes the files of each runtime, and binds its code to the manifest; it returns the places of the weights that lie in
files of their own.
"""


def _figures(folder: Path) -> dict[str, int | None] | None:
    """What a standalone model takes of memory."""
    path = folder / "figures.json"
    return parse_json(read_text(path)) if path.is_file() else None


def _archive(path: Path, objects: tuple[Path, ...]) -> None:
    with tarfile.open(path, "w") as archive:
        for file in objects:
            archive.add(file, file.name)


def _names(folder: Path) -> Iterator[str]:
    return (entry.name for entry in folder.iterdir())


def _replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / MANIFEST).is_file() or not any(folder.iterdir()))


def _said(
    artifact: Artifact,
    runtime: Runtime,
    states: Sequence[Mapping[str, Any]],
    certificate: Mapping[str, Any] | None,
    data: DataFacts | None,
) -> dict[str, Any]:
    """What the manifest says that is known before the code is linked."""
    return {
        "format": FORMAT,
        "runtime": runtime,
        "target": asdict(artifact.target),
        "inputs": [spec.plain() for spec in artifact.inputs],
        "outputs": [spec.plain() for spec in artifact.outputs],
        "state": states,
        "signature": artifact.signature.plain(),
        "threads": artifact.threads,
        "pipeline": artifact.pipeline,
        "versions": {name: metadata.version(name) for name in ("reconvene", "apache-tvm", "apache-tvm-ffi", "torch")},
        "certificate": None if certificate is None else dict(certificate),
        "data": None if data is None else data.to_plain(),
        "memory": asdict(artifact.memory),
        "arena": asdict(artifact.arena) if runtime in ("python", "wheel") else None,
    }


def _found(folder: Path) -> dict[str, Any]:
    """What the manifest says of the files in `folder`."""
    names = sorted(_names(folder))
    versions = [needed_glibc(folder / name) for name in names if name == PROGRAM or name.endswith(".so")]
    return {
        "glibc": max((v for v in versions if v), key=lambda v: tuple(map(int, v.split("."))), default=None),
        "files": {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in names},
    }

"""TVM's runtime for a board out of its own wheels: fetched once, and only files whose checksums are known here.

``runtime/wheels.txt`` names them; `requirements/lock.py` writes it. What was fetched is kept in the user's cache folder.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata, resources
from pathlib import Path

from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from ..machines.targets import Target
from .runtime_library import digest, made_once

__all__ = ["WHEEL_LIBRARIES", "has_wheel", "wheel_runtime"]

WHEEL_LIBRARIES = {
    "apache-tvm": "tvm/lib/libtvm_runtime.so",
    "apache-tvm-ffi": "tvm_ffi/lib/libtvm_ffi.so",
}
"""What is taken out of the wheel of each distribution."""

_ADVICE = "or use --runtime static"


def has_wheel(target: Target) -> bool:
    """Whether the registry has a wheel of TVM's runtime for the target's architecture."""
    return target.isa.wheel is not None


def wheel_runtime(target: Target) -> tuple[Path, ...]:
    """``libtvm_runtime.so`` and ``libtvm_ffi.so`` from the registry's wheels for the target's architecture.

    Raises:
        InputError: there is no wheel for the architecture, it cannot be downloaded, or what came is not the file whose
            checksum is known.
    """
    platform = target.isa.wheel
    if platform is None:
        raise InputError(
            f"there is no wheel of TVM for {target.triple}, so no runtime to put into the bundle; use --runtime static"
        )
    requirements = _requirements()

    def build(folder: Path) -> None:
        with stage("downloading TVM's runtime for the board, once"), tempfile.TemporaryDirectory() as temporary:
            for name, wheel in _downloaded(requirements, platform, Path(temporary)).items():
                member = WHEEL_LIBRARIES[name]
                with zipfile.ZipFile(wheel) as archive:
                    (folder / Path(member).name).write_bytes(archive.read(member))

    made = made_once(f"wheel-{platform}-{digest([requirements])}", build)
    return tuple(made / Path(member).name for member in WHEEL_LIBRARIES.values())


def _requirements() -> str:
    """The wheels of the installed versions, with the checksums of their files, as pip takes them."""
    text = resources.files(__package__).joinpath("runtime", "wheels.txt").read_text(encoding="utf-8")
    for name in WHEEL_LIBRARIES:
        version = metadata.version(name)
        if f"{name}=={version} " not in text:
            raise InputError(
                f"no checksum of a wheel of {name} {version} is known here, so none is fetched; install the version that"
                f" reconvene asks for, {_ADVICE}"
            )
    return text


def _downloaded(requirements: str, platform: str, folder: Path) -> dict[str, Path]:
    """Fetches the wheels into `folder`, by the name of their distribution; pip compares each with its checksums."""
    listed = folder / "wheels.txt"
    listed.write_text(requirements, encoding="utf-8")
    options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--platform", platform]
    options += ["--python-version", f"{sys.version_info.major}.{sys.version_info.minor}", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, "--requirement", str(listed)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = {path.name.split("-")[0].replace("_", "-"): path for path in folder.glob("*.whl")}
    if result.returncode == 0 and set(wheels) == set(WHEEL_LIBRARIES):
        return wheels
    if "DO NOT MATCH THE HASHES" in result.stderr:
        raise InputError(
            f"what came as a wheel of TVM for {platform} does not have its checksum, and was not used; look at the index"
            f" that pip is set to, {_ADVICE}"
        )
    said = result.stderr.strip().splitlines()
    lines = [line for line in said if line.startswith("ERROR")] or said or ["no wheel came"]
    raise InputError(
        f"cannot download TVM's wheels for {platform}: {lines[-1].removeprefix('ERROR: ')}; it needs the network once,"
        f" {_ADVICE}"
    )

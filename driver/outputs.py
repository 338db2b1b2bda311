"""Where results go: checked before long work begins, written whole or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..frontend.base.errors import InputError

__all__ = ["check_different", "check_file", "check_folder", "check_report", "suffixed"]


def check_file(path: Path | None) -> None:
    """Raises InputError unless a file can be written to `path`. None is fine."""
    if path is None:
        return
    if path.is_dir():
        raise InputError(f"cannot write '{path}': it is a folder; name a file")
    if not path.parent.is_dir():
        raise InputError(f"cannot write '{path}': there is no folder '{path.parent}'; make it first")
    check_writable(path.parent, path)


def check_different(model: str, *paths: Path | None) -> None:
    """Raises InputError if two results would be written to one file, or one over the model itself."""
    written: set[Path] = set()
    for path in filter(None, paths):
        if path.resolve() in written:
            raise InputError(f"two results were to be written to '{path}'; give each a file of its own")
        if Path(model).is_file() and path.resolve() == Path(model).resolve():
            raise InputError(f"'{path}' is the model itself, and would be lost; name another file")
        written.add(path.resolve())


def check_folder(path: Path) -> None:
    """Raises InputError unless files can be written into the folder `path`, or it can be made. It is not made here."""
    if path.exists() and not path.is_dir():
        raise InputError(f"cannot write into '{path}': it is a file; name a folder")
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise InputError(f"cannot make the folder '{path}': '{nearest}' is a file; choose another place")
    check_writable(nearest, path)


def check_report(path: Path | None) -> None:
    """Raises InputError unless a report can be written to `path`. None is fine."""
    if path is not None and path.suffix not in (".html", ".json"):
        raise InputError(f"a report is .html or .json, not '{path.name}'")
    check_file(path)


def check_writable(folder: Path, what: Path) -> None:
    try:
        # Asking for permission is not enough on read-only and full disks: try.
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0")
    except OSError as error:
        raise InputError(f"cannot write '{what}': {error.strerror}; choose a folder you can write to") from None


def suffixed(path: Path, suffix: str) -> Path:
    """The path with `suffix` after its whole name: ``resnet1.5`` has none that could be replaced."""
    return path.with_name(path.name + suffix)

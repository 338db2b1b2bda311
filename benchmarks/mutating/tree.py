"""A copy of the checkout that mutants may change."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

PACKAGES = ("frontend", "passes", "backends", "driver")


def copy_tree(checkout: Path, tree: Path) -> None:
    """Copies every file that git tracks in `checkout`, as it is on disk, into the new folder `tree`.

    The copy's ``reconvene`` holds links to the other packages, so that a process with `tree` first on its path imports
    all of the copy and nothing of the checkout.
    """
    for name in tracked(checkout):
        _copy(checkout / name, tree / name)
    for package in PACKAGES:
        (tree / "reconvene" / package).symlink_to(Path("..") / package)


def renew(checkout: Path, tree: Path, folder: str) -> list[str]:
    """Copies what differs below `folder` again, and returns the names of those files."""
    changed = [name for name in tracked(checkout, folder) if not _same(checkout / name, tree / name)]
    for name in changed:
        _copy(checkout / name, tree / name)
    return changed


def tracked(checkout: Path, *folders: str) -> list[str]:
    """Files that git tracks, or would track if they were added, relative to `checkout`."""
    line = ["git", "-C", str(checkout), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders]
    names = subprocess.run(line, check=True, capture_output=True, text=True).stdout.split("\0")
    return [name for name in names if name and (checkout / name).is_file()]


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.read_bytes() == other.read_bytes()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)

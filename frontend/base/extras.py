"""How packages are had that only some of this one needs."""

from __future__ import annotations

import re
from importlib import metadata

__all__ = ["install_command"]

_PACKAGE = "reconvene"


def install_command(extra: str) -> str:
    """A command that installs what an extra of this package asks for.

    It names those packages themselves: this one need not be in any index to have been installed.

    Raises:
        ValueError: there is no such extra.
    """
    try:
        wanted = _packages(extra)
    except metadata.PackageNotFoundError:  # Imported from where its code lies.
        return f"pip install '.[{extra}]'"
    if not wanted:
        raise ValueError(f"there is no extra '{extra}'")
    return " ".join(["pip install", *(f"'{requirement}'" for requirement in wanted)])


def _packages(extra: str) -> list[str]:
    """What an extra adds, with that of extras that it consists of."""
    split = (requirement.partition(";") for requirement in metadata.requires(_PACKAGE) or [])
    own = [name.strip() for name, _, marker in split if marker.split() == ["extra", "==", f'"{extra}"']]
    nested = [re.fullmatch(rf"{_PACKAGE}\[(.*)\]", name) for name in own]
    return [name for one, found in zip(own, nested, strict=True) for name in (_packages(found[1]) if found else [one])]

"""The files of a bundle that say whose code is in it: ``LICENSE``, ``NOTICE`` and ``LICENSES.txt``."""

from __future__ import annotations

from pathlib import Path

from .materials import Contents, Material, own_license

__all__ = ["LICENSE", "NOTICE", "TEXTS", "write_notices"]

LICENSE, NOTICE, TEXTS = "LICENSE", "NOTICE", "LICENSES.txt"
"""Our licence; what is in the bundle, with the notices of others; and the texts of others' licences."""

_RULE = "=" * 80


def write_notices(contents: Contents, folder: Path, what: str) -> None:
    """Writes them into `folder`, which holds `what`; without `TEXTS` where only our code is inside.

    Raises:
        InputError: a distribution whose code is inside lacks the text of its licence.
    """
    (folder / LICENSE).write_text(own_license(), encoding="utf-8")
    (folder / NOTICE).write_text(_notice(contents, what), encoding="utf-8")
    texts = _texts(contents)
    if texts:
        (folder / TEXTS).write_text(texts, encoding="utf-8")


def _notice(contents: Contents, what: str) -> str:
    lines = [f"This folder holds {what}.", ""]
    lines += ["Beside the model, its weights and what was computed from them, its files contain:", ""]
    lines += [_line(material) for material in contents.materials]
    lines += ["", f"{LICENSE} is reconvene's licence. Copyright 2026 The reconvene founders."]
    if any(material.texts for material in contents.materials):
        lines += [f"{TEXTS} has the licences of the others; whoever passes the folder on passes these files on too."]
    for material in contents.relinkable:
        lines += ["", *_relinking(material)]
    for material in contents.materials:
        if material.notice:
            lines += ["", f"NOTICE of {material.name}:", "", material.notice.strip()]
    return "\n".join(lines) + "\n"


def _line(material: Material) -> str:
    version = f" {material.version}" if material.version else ""
    return f"    {material.name}{version}: {material.what}. {material.license or 'Several licences'}"


def _relinking(material: Material) -> list[str]:
    """What static linking asks of whoever passes the program on."""
    return [
        f"The program `run` is linked with {material.name} statically. The LGPL (version 2.1, section 6) lets you pass such a",
        "program on under terms of your choice if whoever gets it may change that library and link the program anew, and gets",
        "what that needs: the model or its objects (`reconvene compile --no-link`), while reconvene and TVM are free software.",
        "A program that the Python package `ziglang` links has a C library without this condition, and `--runtime wheel` one",
        "that is not inside.",
    ]


def _texts(contents: Contents) -> str:
    """Each text once, under the names of all that it is for."""
    owners: dict[str, list[str]] = {}
    for material in contents.materials:
        for text in material.texts:
            owners.setdefault(text.strip(), []).append(material.name)
    return "\n".join(f"{_RULE}\n{', '.join(names)}\n{_RULE}\n\n{text}\n" for text, names in owners.items())

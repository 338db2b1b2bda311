"""Text that others wrote, as it is shown: a terminal obeys control characters, so those are written out."""

from __future__ import annotations

__all__ = ["shown"]


def shown(text: str) -> str:
    """`text` with everything escaped that is not printed as it is, but for ends of lines: ``\\x1b[2J``."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )

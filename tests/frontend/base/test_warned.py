"""Warnings name the line of whoever called us."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable

import pytest

from reconvene.frontend.base.warned import warn_caller


def inside(depth: int) -> Callable[[], None]:
    """A function as of this package that warns, so many calls deep."""
    module = types.ModuleType("reconvene.somewhere")
    module.warn_caller = warn_caller  # type: ignore[attr-defined]
    code = "def call(depth):\n    warn_caller('look', DeprecationWarning) if depth == 0 else call(depth - 1)\n"
    exec(compile(code, "/somewhere/inside.py", "exec"), module.__dict__)
    return lambda: module.call(depth)


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_the_first_line_outside_is_named(depth: int) -> None:
    with pytest.warns(DeprecationWarning, match="look") as found:
        inside(depth)()
    assert found[0].filename == __file__


def test_a_filter_by_module_takes_it() -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module=__name__.replace(".", r"\."))
        inside(2)()
    assert not found

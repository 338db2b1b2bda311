"""Code whose change no test can or should notice: types, words, and what is there for speed or for safety alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator

__all__ = ["PassedOver", "imported_lines", "statement_lines"]

Place = tuple[int, int]

_CACHES = ("cache", "lru_cache", "cached_property")
_SPEAKERS = ("warnings", "logging", "logger", "log")
_SHOWN = ("__repr__", "__str__")


class PassedOver:
    """The parts of one file that are not mutated, and why."""

    def __init__(self, source: str) -> None:
        self._spans = [(_start(node), _end(node), reason) for node, reason in _parts(ast.parse(source))]

    def reason(self, place: Place, operator: str) -> str:
        """Why the code at `place` (line from 1, column from 0) is left alone; empty where it is not."""
        row, column = place
        if operator.endswith("RemoveDecorator"):
            column += 1  # Its node begins at the @.
        return next((reason for start, end, reason in self._spans if start <= (row, column) < end), "")


def _start(node: ast.AST) -> Place:
    return node.lineno, node.col_offset  # type: ignore[attr-defined]


def _end(node: ast.AST) -> Place:
    return node.end_lineno, node.end_col_offset  # type: ignore[attr-defined]


def _parts(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            yield node.annotation, "a type"
        elif isinstance(node, ast.FunctionDef):
            yield from _parts_of_function(node)
        elif isinstance(node, ast.JoinedStr):
            yield node, "text for a person"
        elif isinstance(node, ast.Call):
            yield from _parts_of_call(node)
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield node, "a type"
        for decorator in getattr(node, "decorator_list", []):
            yield from _parts_of_decorator(decorator)


def _parts_of_decorator(decorator: ast.expr) -> Iterator[tuple[ast.AST, str]]:
    name = _called(decorator)
    if name in _CACHES:
        yield decorator, "there for speed"
    elif name == "dataclass" and isinstance(decorator, ast.Call):
        for keyword in decorator.keywords:
            yield keyword, "a guard against assignment, or there for speed"


def _parts_of_function(node: ast.FunctionDef) -> Iterator[tuple[ast.AST, str]]:
    if node.returns is not None:
        yield node.returns, "a type"
    if node.name in _SHOWN:
        yield node, "text for a person"


def _parts_of_call(node: ast.Call) -> Iterator[tuple[ast.AST, str]]:
    name = _called(node)
    if isinstance(node.func, ast.Attribute) and _called(node.func.value) in _SPEAKERS:
        yield node, "text for a person"
    for keyword in node.keywords:
        if name == "zip" and keyword.arg == "strict":
            yield keyword, "a guard against a fault of our own"


def _called(node: ast.expr) -> str:
    """The last part of a name, with or without a call."""
    function = node.func if isinstance(node, ast.Call) else node
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def statement_lines(source: str, first: int, last: int) -> range:
    """Lines of the statement, or of the head of the compound one, that lines `first` to `last` belong to."""
    best = range(first, last + 1)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and node.lineno <= first and last <= (node.end_lineno or 0):
            body = getattr(node, "body", None)
            end = body[0].lineno - 1 if body else node.end_lineno or node.lineno
            if first <= end:
                best = range(node.lineno, max(end, node.lineno) + 1)
    return best


def imported_lines(source: str) -> set[int]:
    """Lines that run when the file is imported, or may: those outside of functions, and the heads of functions."""
    inside: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside |= set(range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1))
    return set(range(1, source.count("\n") + 2)) - inside

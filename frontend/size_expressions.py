"""Whether the text of a size is arithmetic, and cheap: torch gives it to sympy, which evaluates it as Python code."""

from __future__ import annotations

import ast
import math
import re

__all__ = ["is_size_expression"]

_FUNCTIONS = frozenset(
    "Add Mul Pow Integer Rational Float Max Min floor ceiling Abs Equality Unequality StrictLessThan LessThan"
    " StrictGreaterThan GreaterThan Eq Ne Lt Le Gt Ge And Or Not"
    " FloorDiv ModularIndexing Where PythonMod Mod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural FloatPow"
    " FloatTrueDiv IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToFloat TruncToInt RoundToInt RoundDecimal ToFloat"
    " Identity".split()
)
"""What torch writes: sympy's own, and those of ``torch.utils._sympy.functions``."""

_POWERS = frozenset("Pow PowByNatural FloatPow LShift".split())
_NAMES = re.compile(r"(s|u|zf|zuf|ps)\d+|True|False|true|false")
"""Sizes that are not known, as ``str`` writes them. Python and sympy would look up what other names mean."""

_SYMBOLS = re.compile(r"[A-Za-z_]\w{0,63}")
_ASSUMPTIONS = frozenset(
    "positive negative nonnegative nonpositive nonzero integer real finite zero commutative".split()
)
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)

_MAX_LENGTH, _MAX_DEPTH, _MAX_NUMBER = 4096, 48, 2**63
_MAX_EXPONENT, _MAX_NESTED_POWERS = 16, 2
"""A power of a power of a power of large numbers takes more memory than there is."""

_MAX_TERMS, _MAX_CHOICES = 1000, 16
"""Of a sum when all is multiplied out, as sympy does; and of ``Max`` and ``Min``, all of which are compared with all."""


def is_size_expression(text: str) -> bool:
    """Whether `text` is made of numbers, symbols, arithmetic and the functions that torch writes, as ``str`` or ``srepr`` do:
    ``2*s0 + 1`` or ``Add(Mul(Integer(2), Symbol('s0', positive=True, integer=True)), Integer(1))``.
    """
    if len(text) > _MAX_LENGTH or not text.isascii() or _depth(text) > _MAX_DEPTH:
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return _is_known(tree.body, 0) and _terms(tree.body) <= _MAX_TERMS


def _depth(text: str) -> int:
    deepest = depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    return deepest


def _is_known(node: ast.expr, powers: int) -> bool:
    """Whether a part of an expression is known; it lies inside so many powers."""
    match node:
        case ast.Constant(value=value):
            return isinstance(value, bool | int | float) and abs(value) <= _MAX_NUMBER
        case ast.Name(id=name):
            return _NAMES.fullmatch(name) is not None
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _is_known(operand, powers)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _is_power(left, right, powers)
        case ast.BinOp(left=left, op=op, right=right):
            return isinstance(op, _OPERATORS) and _is_known(left, powers) and _is_known(right, powers)
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return isinstance(op, _COMPARISONS) and _is_known(left, powers) and _is_known(right, powers)
        case ast.Call(func=ast.Name(id=name)):
            return _is_known_call(node, name, powers)
    return False


def _is_known_call(call: ast.Call, name: str, powers: int) -> bool:
    """The same of a call of the function `name`."""
    match call:
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(symbol))], keywords=assumptions):
            return _SYMBOLS.fullmatch(symbol) is not None and all(_is_assumption(given) for given in assumptions)
        case ast.Call(func=ast.Name(id="Float"), args=[ast.Constant(value=str(digits))], keywords=[precision]):
            return bool(re.fullmatch(r"-?[\d.]{1,40}(e[+-]?\d{1,3})?", digits)) and _is_precision(precision)
        case ast.Call(args=[base, exponent], keywords=[]) if name in _POWERS:
            return _is_power(base, exponent, powers)
        case ast.Call(args=args, keywords=[]):
            return name in _FUNCTIONS - _POWERS and all(_is_known(given, powers) for given in args)
    return False


def _is_power(base: ast.expr, exponent: ast.expr, powers: int) -> bool:
    """Of a small exponent that is written as a number."""
    while isinstance(exponent, ast.Call) and len(exponent.args) == 1:
        if not (isinstance(exponent.func, ast.Name) and exponent.func.id == "Integer"):
            return False
        exponent = exponent.args[0]
    if isinstance(exponent, ast.UnaryOp) and isinstance(exponent.op, ast.USub):
        exponent = exponent.operand
    small = isinstance(exponent, ast.Constant) and isinstance(exponent.value, int) and exponent.value <= _MAX_EXPONENT
    return small and powers < _MAX_NESTED_POWERS and _is_known(base, powers + 1)


def _terms(node: ast.expr) -> int:
    """How many terms a known expression has when it is multiplied out; too many if a part of it has too many."""
    match node:
        case ast.UnaryOp(operand=operand):
            return _terms(operand)
        case ast.BinOp(left=left, op=op, right=right):
            return _joined(_KINDS.get(type(op), ""), [left, right])
        case ast.Compare(left=left, comparators=[right]):
            return _joined("", [left, right])
        case ast.Call(func=ast.Name(id=name), args=args):
            return _joined(name, args)
    return 1


_KINDS = {ast.Add: "Add", ast.Sub: "Add", ast.Mult: "Mul", ast.Div: "Mul", ast.Pow: "Pow"}


def _joined(name: str, args: list[ast.expr]) -> int:
    """The terms of one operation of these operands."""
    found = [_terms(given) for given in args]
    if max(found, default=0) > _MAX_TERMS or (name in ("Max", "Min") and len(args) > _MAX_CHOICES):
        return _MAX_TERMS + 1
    if name in _POWERS and len(args) == 2:
        numbers = [part.value for part in ast.walk(args[1]) if isinstance(part, ast.Constant)]
        exponent = next((int(number) for number in numbers if isinstance(number, int | float)), 1)
        return math.comb(found[0] + exponent - 1, exponent)
    return max(1, sum(found) if name == "Add" else math.prod(found) if name == "Mul" else 1)


def _is_assumption(given: ast.keyword) -> bool:
    return given.arg in _ASSUMPTIONS and isinstance(given.value, ast.Constant) and isinstance(given.value.value, bool)


def _is_precision(given: ast.keyword) -> bool:
    value = given.value
    return given.arg == "precision" and isinstance(value, ast.Constant) and value.value in range(1, 1025)

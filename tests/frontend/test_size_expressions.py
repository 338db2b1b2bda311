"""Sizes in a stored program are arithmetic, and nothing else is given to sympy."""

from __future__ import annotations

import re

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from reconvene.frontend.size_expressions import is_size_expression

WRITTEN = [
    "3", "-1", "s77", "2*s0", "s77 + 2", "s0//2", "(s0 - 1)//2 + 1", "s0*(s1 + 3)", "-s0", "s0**2", "u0", "zf3",
    "FloorDiv(s0 - 1, 2)", "Max(1, s0)", "Mod(s0, 4)", "PowByNatural(s0, 2)", "Eq(s0, 3)", "Min(s0, 2) <= 3",
    "2.0*ToFloat(s0)", "Symbol('s77', positive=True, integer=True)", "Symbol('batch', integer=True)",
    "Add(Mul(Integer(2), Symbol('s0', positive=True, integer=True)), Integer(-1))",
    "Pow(Symbol('s0', integer=True), Integer(2))", "Pow(s0, Integer(-1))", "Float('1.5', precision=53)", "Rational(1, 2)",
    "(s0 + 1)**16", "(s0 + s1)*(s0//2 + 1)*(s1//2 + 1)", "+".join(f"{i + 1}*s{i}" for i in range(200)), "Min(s0, s1, s2, s3)",
]  # fmt: skip

CODE = [
    "", "__import__('os').system('id')", "exec('1')", "eval", "s0.__class__", "().__class__", "s0[0]", "[s0]", "{s0}",
    "lambda: 3", "s0 if s0 else s1", "s0 or s1", "s0 := 3", "s0; s1", "s0 s1", "f(s0)", "(s0)(s1)", "s0(3)", "Max",
    "'a'", "f'{s0}'", "x", "S", "Q.even(s0)", "N(s0)", "sin(s0)", "Symbol(s0)", "Symbol(name='s0')",
    "Symbol('__import__(1)')", "Symbol('s0', Max)", "Symbol('s0', integer=Max)", "Symbol('s0', cls=True)", "Float(open)",
    "Float('9'*9)", "Max(*s0)", "Max(**s0)", "Integer('3')", "s0!", "s0^2", "s0 @ s1", "~s0", "s0 << 3", "not s0",
    "1j", "...", "None", "b'x'", "s0 < s1 < s2", "(yield)", "await s0", "print(s0)", "s0\n\nimport os", "ｓ0",
]  # fmt: skip

COSTLY = [
    "9**9**9", "s0**17", "s0**s1", "Pow(9, Pow(9, 9))", "(((9**9)**9)**9)**9", "PowByNatural(9, 99999999)",
    "LShift(1, 999999999)", "Pow(Pow(Pow(s0, 16), 16), 16)", "9" * 30, "1e999", "(" * 60 + "s0" + ")" * 60, "s0+" * 3000 + "s0",
    f"({'+'.join(f's{i}' for i in range(30))})**16", f"Pow(Add({','.join(f's{i}' for i in range(12))}), Integer(8))",
    "*".join(f"(s{i} + s{i + 1})" for i in range(20)), f"FloorDiv({'*'.join(f'(s{i} - s{i + 1})' for i in range(20))}, 3)",
    f"Max({','.join(f'Min(s{i}, s{i + 1} + 1)' for i in range(60))})",
]  # fmt: skip


@pytest.mark.parametrize("text", WRITTEN)
def test_what_torch_writes_is_taken(text: str) -> None:
    assert is_size_expression(text)


@pytest.mark.parametrize("text", CODE)
def test_code_and_names_are_not(text: str) -> None:
    assert not is_size_expression(text)


@pytest.mark.parametrize("text", COSTLY, ids=range(len(COSTLY)))
def test_what_takes_forever_is_not(text: str) -> None:
    assert not is_size_expression(text)


SIZES = st.recursive(
    st.sampled_from([sympy.Symbol("s0", positive=True, integer=True), sympy.Symbol("s1", integer=True)])
    | st.integers(-9, 9).map(sympy.Integer),
    lambda inner: (
        st.builds(lambda a, b: a + b, inner, inner)
        | st.builds(lambda a, b: a * b, inner, inner)
        | st.builds(sympy.Max, inner, inner)
    ),
    max_leaves=8,
)


@given(SIZES)
def test_both_ways_to_write_a_size_are_taken(size: sympy.Expr) -> None:
    assert is_size_expression(sympy.srepr(size))
    assert is_size_expression(str(size))


@given(st.text(alphabet="s01+-*/()., '\"_abMaxSymbol=[]", max_size=40))
def test_what_is_taken_has_no_attribute_item_or_unknown_name(text: str) -> None:
    if is_size_expression(text):
        assert "[" not in text and "__" not in text
        assert re.search(r"\.[A-Za-z]", text) is None

"""Every rule's docstring shows a call before channels go and after, and that is what compaction makes of it."""

from __future__ import annotations

import inspect
import textwrap

import pytest

from reconvene.passes.rules import Rule, registered

from ..support.operators import own_operators
from ..support.rule_examples import examples

RULES = list(dict.fromkeys(type(rule) for name, rule in registered().items() if name in own_operators()))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_example_in_the_docstring_is_what_happens(rule: type[Rule]) -> None:
    described = inspect.cleandoc(rule.__doc__ or "").partition("For example::\n\n")[2]
    shown = textwrap.dedent(described)
    seen = []
    for example in examples(rule):
        if example == shown:
            return
        seen.append(example)
    pytest.fail(f"no case of {rule.__name__} gives what its docstring shows; one gives\n{seen[0]}")

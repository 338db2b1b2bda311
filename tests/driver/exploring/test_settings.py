"""What an exploration is told: what makes no sense is one line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconvene.backends.machines.targets import find_target
from reconvene.driver.exploring.settings import Settings, parse_budgets
from reconvene.driver.training.presets import Preset
from reconvene.frontend.base.errors import InputError

SETTINGS = Settings()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"budgets": ()}, "there is no budget"), ({"budgets": (1.0,)}, "budget 1 is out of range"),
        ({"budgets": (0.0,)}, "budget 0 is out of range"), ({"budgets": (float("nan"),)}, "budget nan is out of range"),
        ({"budgets": (-0.5,)}, "budget -0.5 is out of range"), ({"budgets": (0.5, 0.25, 0.5)}, "budget 0.5 is there twice"),
        ({"budgets": (0.3333331, 0.33333311)}, "budget 0.333333 is there twice"),
        ({"variants": ()}, "there is nothing to make"), ({"variants": ("mapped", "mapped")}, "'mapped' is there twice"),
        ({"variants": ("best",)}, "there is no variant 'best'"), ({"variants": ("2:4",)}, "says its share of zeros itself"),
        ({"variants": ("row-block:4@0.5",)}, "says its share of zeros itself"), ({"difficulty": "odd"}, "not 'odd'"),
        ({"beta": -1.0}, "beta -1.0"), ({"images": 0}, "0 images"), ({"timed_by": "sun"}, "not by 'sun'"),
        ({"told_by": "sun"}, "not by 'sun'"), ({"told_by": "time"}, "another machine than this"),
        ({"timed_by": "time"}, "do not run on this machine"), ({"preset": Preset(0, 1, 0.1)}, "train nothing"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_one_line(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        replace(SETTINGS, **changes).check(find_target("rpi4"))
    assert "\n" not in str(caught.value)


def test_a_board_has_a_clock() -> None:
    with pytest.raises(InputError, match="a board tells times by its clock"):
        replace(SETTINGS, told_by="model").check(find_target("rpi4"), board=True)
    SETTINGS.check(find_target("rpi4"), board=True)
    assert SETTINGS.teller(find_target("rpi4"), board=True) == SETTINGS.teller(find_target("host")) == "time"
    assert SETTINGS.teller(find_target("rpi4")) == "estimate"
    assert replace(SETTINGS, told_by="model").teller(find_target("host")) == "model"


def test_budgets_from_text_and_their_order() -> None:
    assert parse_budgets("0.25,0.5") == (0.25, 0.5)
    for text in ("", "half", "0.5,,0.2"):
        with pytest.raises(InputError, match="is no list of budgets"):
            parse_budgets(text)
    turned = Settings((0.25, 0.5), ("mapped", "channels"))
    assert turned.pairs == (("mapped", 0.5), ("channels", 0.5), ("mapped", 0.25), ("channels", 0.25))
    assert turned.recorded() == replace(turned, budgets=(0.5, 0.25)).recorded()

"""Numbers as people write them."""

from __future__ import annotations

import pytest

from reconvene.driver.wording import change, count, milliseconds, relative, size, times


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (14_728_266, "14.7 M"), (999_999, "1.00 M"), (3.13e11, "313 G")],
)
def test_count(value: float, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "0.123 ms"), (1.234, "1.23 ms"), (123.4, "123 ms"), (1234.0, "1234 ms"), (0.0, "0 ms")]
)
def test_milliseconds(value: float, text: str) -> None:
    assert milliseconds(value) == text


def test_sizes_changes_ratios_and_differences() -> None:
    assert (size(999), size(58_913_064)) == ("999 bytes", "58.9 MB")
    assert (change(4, 1), change(4, 5), change(0, 1)) == ("−75.0 %", "+25.0 %", "–")
    assert (times(3.0, 1.5), times(1, 0)) == ("2.00×", "–")
    assert (relative(3.21e-16), relative(0.0)) == ("3.2e-16", "0")

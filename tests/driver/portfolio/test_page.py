"""The front: who is beaten by whom."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reconvene.driver.portfolio.manifest import Variant
from reconvene.driver.portfolio.page import front

BASE = Variant("base", 0.5, 10, 10, 40, 100, {"host": 1.0}, 100, {})


def variants(*figures: tuple[float | None, float, int]) -> list[Variant]:
    return [
        replace(BASE, name=f"v{n}", accuracy=accuracy, latency_ms={"host": latency}, bytes=size)
        for n, (accuracy, latency, size) in enumerate(figures)
    ]


def test_a_variant_that_is_worse_in_all_is_beaten() -> None:
    made = variants((0.9, 3.0, 300), (0.8, 2.0, 200), (0.7, 2.5, 250), (0.7, 1.0, 250))
    assert front(made, "host") == ("v0", "v1", "v3")


def test_twins_do_not_beat_each_other() -> None:
    assert front(variants((0.9, 1.0, 10), (0.9, 1.0, 10)), "host") == ("v0", "v1")


def test_without_a_target_latency_does_not_count() -> None:
    made = variants((0.9, 3.0, 100), (0.8, 1.0, 100))
    assert front(made, None) == ("v0",)
    assert front(made, "rpi4") == ("v0",)


def test_without_accuracies_there_is_no_front() -> None:
    assert front(variants((None, 3.0, 300), (None, 1.0, 100)), "host") == ()
    assert front(variants((0.9, 3.0, 300), (None, 1.0, 100)), "host") == ()


def test_ties_within_noise_share_the_front() -> None:
    assert front(variants((0.9, 1.0, 10), (0.9, 1.019, 10)), "host") == ("v0", "v1")
    assert front(variants((0.9, 1.0, 10), (0.9, 1.03, 10)), "host") == ("v0",)
    near = variants((0.9, 1.0, 10), (0.88, 1.0, 10))
    assert front(near, "host") == ("v0",)  # Of nobody knows how many images.
    few = [replace(variant, source={"test_images": 100}) for variant in near]
    assert front(few, "host") == ("v0", "v1")
    many = [replace(variant, source={"test_images": 10_000}) for variant in near]
    assert front(many, "host") == ("v0",)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 9), st.integers(1, 9)), min_size=1, max_size=8))
def test_who_is_not_on_the_front_is_beaten_by_somebody_on_it(figures: list[tuple[float, float, int]]) -> None:
    made = variants(*figures)
    best = front(made, "host")
    assert best
    chosen = [v for v in made if v.name in best]
    for v in made:
        if v.name not in best:
            assert any(
                (w.accuracy or 0) >= (v.accuracy or 0)
                and w.latency_ms["host"] <= v.latency_ms["host"]
                and w.bytes <= v.bytes
                for w in chosen
            )

"""The certificate: a wrong rewrite is caught, its first node named, and nothing handed out."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import CheckError
from reconvene.frontend.capture import capture
from reconvene.passes import compaction
from reconvene.passes.compaction import compact
from reconvene.passes.rules import rule_for
from reconvene.passes.running import run_graph
from reconvene.passes.verification import _Check, _difference, _Trial

from ..support.models import channel_masks, randomise, view_of

IMAGE = (torch.randn(2, 3, 8, 8),)


class Network(nn.Module):
    """Three convolutions; the last two need carriers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Conv2d(8, 4, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.sigmoid(self.second(torch.sigmoid(self.first(x)))))


def failure(model: nn.Module, **options: Any) -> str:
    """The message that compacting with M1 masks fails with."""
    masks = channel_masks(view_of(model, IMAGE), "M1")
    with pytest.raises(CheckError) as caught:
        compact(capture(model, IMAGE), IMAGE, masks, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_rule_that_forgets_the_constants_is_caught_at_its_first_node(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = rule_for("aten.conv2d")
    monkeypatch.setattr(rule, "_absorb", lambda op, geometry, edit, kernel, selection, new: (new, None))
    message = failure(randomise(Network()))
    assert "withheld" in message
    assert "first at 'conv2d_1'" in message
    assert "test_verification.py" in message or "conv.py" in message


def test_a_wrong_constant_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = rule_for("aten.sigmoid")
    found = type(rule).constants

    def wrong(op: Any, facts: Any) -> Any:
        right = found(rule, op, facts)
        return type(right)(right.value + 0.1, right.known, right.pattern, right.stochastic)

    monkeypatch.setattr(rule, "constants", wrong)
    assert "differs" in failure(randomise(Network()))


def test_channels_that_go_although_they_are_read_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_for("aten.conv2d"), "demand", lambda op, live: None)
    assert "withheld" in failure(randomise(Network()))


def test_a_graph_that_does_not_run_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        rule_for("aten.conv2d"), "rewrite", lambda op, edit: edit.set_argument(op, "dilation", [100, 100])
    )
    assert "does not run" in failure(randomise(Network()))


def test_an_output_of_another_shape_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    original = compaction.rewrite

    def cut(view: Any, live: Any) -> Any:
        module = original(view, live)
        output = module.graph.output_node()
        (value,) = output.args[0]
        with module.graph.inserting_before(output):
            sliced = module.graph.call_function(torch.ops.aten.slice.Tensor, (value, 0, 0, 1))
            sliced.meta["val"] = value.meta["val"][:1]
        output.args = ((sliced,),)
        module.recompile()
        return module

    monkeypatch.setattr(compaction, "rewrite", cut)
    assert "inf" in failure(randomise(Network()))


def test_a_model_that_gives_nan_is_compared_entry_by_entry() -> None:
    class Logarithm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).relu()).log()

    model = randomise(Logarithm())
    result = compact(capture(model, IMAGE), IMAGE, channel_masks(view_of(model, IMAGE), "M2"))
    assert result.certificate.max_relative <= 1e-12
    assert result.module(*IMAGE).isnan().any()


def test_the_certificate_says_what_was_run() -> None:
    model = randomise(Network()).double()
    example = (torch.randn(2, 3, 8, 8, dtype=torch.float64),)
    certificate = compact(capture(model, example), example, runs=3, seed=5).certificate
    assert (certificate.dtype, certificate.seed) == ("float64", 5)
    assert certificate.inputs == (*[("2x3x8x8",)] * 3, ("3x3x8x8",))
    assert certificate.max_relative == certificate.max_absolute == 0.0
    assert certificate.tolerance <= 1e-9


def test_a_model_in_float32_is_checked_in_float64_within_its_own_rounding() -> None:
    model = randomise(Network())
    masks = channel_masks(view_of(model, IMAGE), "M1")
    certificate = compact(capture(model, IMAGE), IMAGE, masks).certificate
    assert certificate.dtype == "float64"
    assert 0 < certificate.max_relative < 1e-6 < certificate.tolerance


def test_the_check_can_run_in_float32() -> None:
    model = randomise(Network())
    masks = channel_masks(view_of(model, IMAGE), "M1")
    certificate = compact(capture(model, IMAGE), IMAGE, masks, dtype=torch.float32).certificate
    assert (certificate.dtype, certificate.max_relative < 1e-5) == ("float32", True)


def test_half_precision_models_are_checked() -> None:
    model = randomise(Network()).half()
    example = (IMAGE[0].half(),)
    result = compact(capture(model, example), example, channel_masks(view_of(model, example), "M1"))
    assert result.after.parameters < result.before.parameters
    assert all(parameter.dtype is torch.float16 for parameter in result.module.parameters())


def test_the_interpreter_runs_in_the_type_that_is_asked_for() -> None:
    class Cast(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.to(torch.float32) * 2

    (result,) = run_graph(capture(Cast(), IMAGE), IMAGE, torch.float64)
    assert result.dtype is torch.float64


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("expected", "found", "difference", "size"),
    [
        ([1.0, -4.0], [1.5, -4.0], 0.5, 4.0),
        ([1.0, -4.0], [1.0, -3.0], 1.0, 4.0),
        ([0.0, 0.0], [0.0, 0.25], 0.25, 1.0),
        ([NAN, 2.0], [NAN, 2.0], 0.0, 2.0),
        ([NAN, 2.0], [1.0, 2.0], INF, 2.0),
        ([1.0, 2.0], [NAN, 2.0], INF, 2.0),
        ([NAN, NAN], [NAN, 0.0], INF, 1.0),
        ([INF, 2.0], [INF, 2.5], 0.5, 2.0),
        ([INF, 2.0], [-INF, 2.0], INF, 2.0),
        ([INF, 2.0], [3.0, 2.0], INF, 2.0),
        ([3.0, 2.0], [INF, 2.0], INF, 3.0),
        ([], [], 0.0, 1.0),
        ([3 + 4j], [3 + 2j], 2.0, 4.0),
        ([3 + 1j], [complex(NAN, 1)], INF, 3.0),
    ],
)
def test_values_differ_by_their_largest_gap_and_without_limit_in_what_is_no_number(
    expected: list[Any], found: list[Any], difference: float, size: float
) -> None:
    assert _difference(torch.tensor(expected), torch.tensor(found)) == (difference, size)


def test_whole_numbers_differ_in_so_many_places_and_types_and_shapes_altogether() -> None:
    ones = torch.ones(2, 3)
    assert _difference(torch.tensor([1, 2, 3]), torch.tensor([1, 5, 9])) == (2.0, 1.0)
    assert _difference(torch.tensor([True, False]), torch.tensor([True, True])) == (1.0, 1.0)
    assert _difference(ones, ones.double()) == (INF, 1.0)
    assert _difference(ones, ones.T) == _difference(ones, ones[:1]) == (INF, 1.0)
    assert _difference(ones, 1.0) == _difference(1.0, ones) == (INF, 1.0)
    assert _difference(3, 3) == _difference(None, None) == (0.0, 1.0)
    assert _difference(3, 4) == _difference(3, 3.0) == _difference(1, True) == (INF, 1.0)


def test_what_rounding_alone_might_do_is_forgiven_on_inputs_that_were_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 4, dtype=torch.float64)
    view, live = compaction.analyse(capture(nn.Linear(4, 3).eval(), (x.float(),)), {})
    wrong = copy.deepcopy(view.module)
    with torch.no_grad():
        wrong.weight.mul_(1.5)
    check = _Check(view, live, wrong, torch.float64)
    monkeypatch.setattr(check, "_rounding", lambda trial, expected: 1.0)
    check.run(_Trial("random", (x,), 0))
    assert not check.done and check.relative == 0.0
    with pytest.raises(CheckError, match=r"differs .* first at 'linear'"):
        check.run(_Trial("as given", (x,), 0, sure=True))
    monkeypatch.setattr(check, "_rounding", lambda trial, expected: 0.0)
    with pytest.raises(CheckError, match="on inputs of kind 'random'"):
        check.run(_Trial("random", (x,), 0))

"""Which layer takes which structure: by name, by shape, and what stays dense and says why."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import reconvene
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.pruning.scores import Evidence
from reconvene.passes.pruning.structure_rules import check_structures, choose, structure_rules
from reconvene.passes.pruning.structured import Ranked, structured_masks
from reconvene.passes.structures import RowBlock, find_structure
from reconvene.passes.weight_views import weight_views

IMAGE = (torch.randn(1, 3, 6, 6),)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.wide = nn.Conv2d(8, 8, 3, padding=1)
        self.odd = nn.Conv2d(8, 6, 3, padding=1)
        self.point = nn.Conv2d(6, 8, 1)
        self.each = nn.Conv2d(8, 8, 3, groups=8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.each(self.point(self.odd(self.wide(self.stem(x))))).mean((2, 3)))


MODULE = capture(Net().eval(), IMAGE)
VIEWS = weight_views(canonicalize(MODULE))


def chosen(asked: Any, ignore: tuple[str, ...] = ()) -> dict[str, str]:
    """By layer, its structure, or why it has none."""
    choices = choose(VIEWS, structure_rules(asked), ignore)
    return {choice.view.name.removesuffix(".weight"): str(choice.structure or choice.reason) for choice in choices}


def test_first_and_last_and_depthwise_layers_stay_dense() -> None:
    found = chosen("row-block:2")
    assert found["wide"] == found["odd"] == found["point"] == "row-block:2"
    assert found["stem"].startswith("a first convolution") and found["each"].startswith("depthwise")
    assert found["fc"].startswith("a last layer")


def test_a_layer_that_is_named_takes_what_it_is_given() -> None:
    found = chosen({"stem": "row-block:4", "fc.weight": "2:4", "each": "row-block:1", "*": "2:4"})
    assert (found["stem"], found["fc"], found["each"], found["wide"]) == ("row-block:4", "2:4", "row-block:1", "2:4")
    assert chosen({"ste*": "row-block:4", "wide": "2:4"})["stem"].startswith("a first")


class Tied(nn.Module):
    """An embedding that is the last layer too, and two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.one, self.other = nn.Embedding(16, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 16, bias=False)
        self.head.weight, self.other.weight = self.words.weight, self.one.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.other(self.one(self.words(x)).relu()).relu())


def test_every_name_of_a_tied_weight_is_one() -> None:
    inputs = (torch.tensor([[1, 2, 3]]),)
    module = capture(Tied().eval(), inputs)

    def taken(asked: Any, **ranked: Any) -> set[str]:
        return set(structured_masks(module, Evidence(inputs), structure_rules(asked), Ranked(**ranked)).masks)

    (one,) = taken("row-block:4")
    both = taken({"head": "row-block:4", "*": "row-block:4"})
    assert one in ("one.weight", "other.weight") and both - {one} < {"head.weight", "words.weight"} and len(both) == 2
    for name in ("one", "other", "other.weight"):
        assert taken({name: "2:4"}) == {one} == both - taken({"head": "row-block:4", "*": "2:4"}, ignore=(name,))
    masks = {one: torch.eye(8, dtype=torch.bool)}
    with pytest.raises(InputError, match="are not row-block:4"):
        check_structures(module, masks, structure_rules({"other": "row-block:4"}))


class Mirrored(nn.Module):
    """A decoder that reads the encoder's weight transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.encoder, self.head = nn.Linear(12, 16), nn.Linear(16, 8), nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.encoder.weight
        code = torch.nn.functional.linear(self.inner(x).relu(), weight, self.encoder.bias)
        return self.head((code.relu() @ weight).relu() + torch.nn.functional.linear(code, weight.t()).relu())


@pytest.mark.parametrize("asked", ["row-block:4", "2:4", "unified:2x2", {"inner": "unified:2x2", "*": "row-block:4"}])
@pytest.mark.parametrize("parametrised", [False, True])
def test_a_weight_that_is_read_transposed_too_is_pruned_once(asked: Any, parametrised: bool) -> None:
    model, inputs = Mirrored().eval(), (torch.randn(2, 12),)
    if parametrised:
        nn.utils.parametrizations.weight_norm(model.encoder)
    result = reconvene.prune(model, inputs, structure=asked, sparsity=0.5)
    zeros = {layer.name: layer for layer in result.report.zeros}
    (mirrored,) = zeros.keys() - {"inner.weight", "encoder.weight", "head.weight"}
    assert zeros["encoder.weight"].asked and zeros[mirrored].asked is None
    assert "its weight is that of 'encoder.weight'" in zeros[mirrored].reason
    stored = dict(result.module.named_parameters())
    assert torch.equal(stored[mirrored].t(), stored["encoder.weight"])
    assert zeros[mirrored].zeros == zeros["encoder.weight"].zeros > 0


def test_a_weight_that_is_read_transposed_too_takes_nothing_by_its_own_name() -> None:
    module = canonicalize(capture(Mirrored().eval(), (torch.randn(2, 12),)))
    views = weight_views(module)
    (mirrored,) = (view.name for view in views if view.source)
    (choice,) = (one for one in choose(views, structure_rules({mirrored: "2:4", "inner": "2:4"})) if one.refused)
    assert choice.view.name == mirrored and "encoder.weight" in choice.reason
    others = {one.view.name: one for one in choose(views, structure_rules({"encoder": "2:4"}))}
    assert "encoder.weight" in others[mirrored].reason and not others[mirrored].refused


def test_the_first_pattern_that_matches_holds_and_a_star_is_for_the_others() -> None:
    found = chosen({"*": "unstructured", "w*": "2:4", "wide": "row-block:2"})
    assert found["wide"] == "2:4" and found["point"] == "unstructured"
    assert chosen({"wide": RowBlock(2)})["odd"] == "no pattern of a structure matches it"


def test_the_first_structure_that_fits_is_taken() -> None:
    found = chosen("pattern:8:4,row-block:4,unstructured")
    assert (found["wide"], found["point"], found["odd"]) == ("pattern:8:4", "row-block:4", "unstructured")


def test_what_fits_nothing_is_refused_with_each_reason() -> None:
    choices = {choice.view.name: choice for choice in choose(VIEWS, structure_rules("pattern,row-block:8"))}
    assert choices["odd.weight"].structure is not None and not choices["stem.weight"].refused
    refused = {choice.view.name: choice for choice in choose(VIEWS, structure_rules("pattern:8:4,row-block:4"))}
    assert refused["odd.weight"].refused
    assert refused["odd.weight"].reason == (
        "pattern:8:4: its 6 filters are no multiple of 4; row-block:4: its 6 filters are no multiple of 4"
    )


def test_what_is_ignored_stays_dense() -> None:
    assert chosen("unstructured", ("wide",))["wide"] == "left alone by 'wide'"


def test_a_structure_may_say_its_own_share() -> None:
    asked = {
        "wide": "row-block:4@0.8",
        "point": "2:4, row-block:4@.25",
        "odd": "2:4@0.5",
        "*": "pattern@0.7,row-block:2",
    }
    choices = {choice.view.name: choice for choice in choose(VIEWS, structure_rules(asked))}
    assert {name: (choice.told, choice.share) for name, choice in choices.items() if choice.structure} == {
        "wide.weight": ("row-block:4@0.8", 0.8),
        "point.weight": ("row-block:4@0.25", 0.25),
        "odd.weight": ("2:4", None),
    }
    (rule,) = structure_rules("pattern@0.7,2:4,row-block:2")
    assert str(rule) == "pattern:8@0.7,2:4,row-block:2" and rule.own_shares == {0.7, 0.5, None}
    for spelled in ("row-block:4@0", "row-block:4@0.999999999", "row-block:4@0.000001"):
        assert str(structure_rules(spelled)[0]) == spelled


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("row-block:4@1", "sparsity 1.0 is outside 0..1"),
        (
            "row-block:4@",
            "'row-block:4@' names no share of zeros after the @; write a number, such as 'row-block:4@0.8'",
        ),
        ("row-block:4@.", "names no share of zeros after the @"),
        ("row-block:4@nan", "'row-block:4@nan' names no share of zeros"),
        ("row-block:4@-0.5", "names no share of zeros"),
        ("row-block:4@0.5@0.5", "names no share of zeros"),
        ("2:4@0.8", "2:4 says its share of zeros itself, 0.5, so '2:4@0.8' has no meaning; leave @0.8 out"),
        ("@0.8", "there is no structure ''"),
        ("dense@0.5", "'dense@0.5' is no structure of zeros inside of a layer: a dense layer has none; leave it out"),
        ({"wide": "channels@0.5"}, "whole channels are of all layers; give their share as sparsity"),
        ({}, "no structure was named"),
        ({2: "2:4"}, "a pattern of layers' names is text, such as 'blocks.*', not 2"),
        ({"wide": 3}, "a structure is its name, such as 'row-block:4', not a int"),
        ("row-block:4,", "no structure ''"),
        ("squares", "no structure 'squares'"),
        ({"nothing": "2:4"}, "the pattern 'nothing' matches no layer; names look like 'stem.weight'"),
        ({"fc*": "2:4"}, "no layer of this model takes a structure of zeros: stem.weight: no pattern"),
        ("row-block:7", "wide.weight: row-block:7: its 8 filters are no multiple of 7"),
    ],
)
def test_what_cannot_be_is_one_line(asked: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        chosen(asked)
    assert "\n" not in str(raised.value)


def test_a_pattern_to_ignore_must_match() -> None:
    with pytest.raises(InputError, match="'fx' matches no layer"):
        chosen("2:4", ("fx",))


def test_a_model_without_such_layers_is_refused() -> None:
    with pytest.raises(InputError, match="no convolution, linear or recurrent layer"):
        choose((), structure_rules("2:4"))


def test_zeros_are_what_they_are_said_to_be() -> None:
    weight = MODULE.get_parameter("wide.weight").detach()
    mask = {"wide.weight": find_structure("row-block:4").mask(weight.abs(), 0.5)}
    for right in ("row-block:4", "row-block:2", "pattern,row-block:4", {"w*": "row-block:4", "*": "pattern"}):
        check_structures(MODULE, mask, structure_rules(right))
    with pytest.raises(InputError, match=r"the zeros of 'wide.weight' are not 2:4: filter 0, input channels \d to \d"):
        check_structures(MODULE, mask, structure_rules("2:4"))
    with pytest.raises(InputError, match="are not row-block:7: its 8 filters are no multiple"):
        check_structures(MODULE, mask, structure_rules("row-block:7"))
    with pytest.raises(InputError, match="'x' matches no layer"):
        check_structures(MODULE, mask, structure_rules({"x": "2:4"}))
    check_structures(MODULE, None, structure_rules("2:4"))
    with pytest.raises(InputError, match=r"the zeros are there already, so that 'row-block:4@0\.5' has no meaning"):
        check_structures(MODULE, mask, structure_rules("row-block:4@0.5"))

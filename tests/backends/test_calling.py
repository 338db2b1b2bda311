"""Compiled models are called as the model is, and give what it gives: by name, in dicts, lists, named tuples, with None."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import reconvene
from reconvene.backends.built import Built, load_bundle
from reconvene.backends.bundles.execution import run_bundle
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import compile
from reconvene.backends.signature import Signature
from reconvene.frontend.base.errors import InputError

from ..support.bundles import edit

Boxes = collections.namedtuple("Boxes", "box label")
Cell = collections.namedtuple("Cell", "state gates")


@dataclasses.dataclass
class Answer:
    logits: Tensor
    attention: Tensor | None = None


torch.export.register_dataclass(Answer, serialized_type_name="tests.Answer")


class Everything(nn.Module):
    """Takes and gives every kind of container and of plain value."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)
        self.register_buffer("table", torch.arange(4.0))

    def forward(self, x, batch, pair, mask=None, scale=2.0, *, more=None):  # type: ignore[no-untyped-def]
        y = self.layer(x) * batch["image"] * scale + pair[0].a - pair[1][0]
        y = y if more is None else y + more
        return {
            "logits": y,
            "none": None,
            "count": x.shape[0],
            "limit": float("inf"),
            "word": "text",
            "boxes": Boxes(y + 1, (y - 1, [y * 2])),
            "table": self.table,
            "same": x,
            "answer": Answer(y * 3),
            7: torch.max(y, 1),
            "empty": {},
            "again": y,
        }


Point = collections.namedtuple("Point", "a")
X, IMAGE, A, B = (torch.randn(2, n, generator=torch.Generator().manual_seed(n)) for n in (8, 4, 1, 4))
ARGUMENTS = (X, {"image": IMAGE, "unused": A}, (Point(A), [B]), None, 0.5)


@pytest.fixture(scope="module")
def model() -> Everything:
    torch.manual_seed(0)
    return Everything().eval()


@pytest.fixture(scope="module")
def built(model: Everything) -> Built:
    return compile(model, ARGUMENTS)


@pytest.fixture(scope="module")
def loaded(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return load_bundle(built.export(tmp_path_factory.mktemp("calling") / "bundle"))


def same(found: Any, wanted: Any) -> None:
    """Tensors are near, and all that is around them is the same."""
    assert pytree.tree_structure(found) == pytree.tree_structure(wanted)
    for one, other in zip(pytree.tree_leaves(found), pytree.tree_leaves(wanted), strict=True):
        if isinstance(other, Tensor):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
        else:
            assert type(one) is type(other) and one == other


def test_everything_comes_back_in_the_models_own_containers(model: Everything, built: Built) -> None:
    same(built.run(*ARGUMENTS), model(*ARGUMENTS))


def test_inputs_by_name_in_any_order(model: Everything, built: Built, loaded: Built) -> None:
    wanted = model(*ARGUMENTS)
    keywords = {
        "pair": [(A,), (B.numpy(),)],
        "scale": 0.5,
        "batch": {"unused": A, "image": IMAGE.numpy()[::-1][::-1]},
        "mask": None,
    }
    same(built.run(X, **keywords), wanted)
    same(built.run(x=X, **keywords), wanted)
    del keywords["mask"]
    torch.testing.assert_close(loaded.run(x=X, **keywords)["logits"], wanted["logits"], atol=1e-5, rtol=1e-4)


def test_a_bundle_keeps_names_as_plain_data(model: Everything, loaded: Built) -> None:
    found, wanted = loaded.run(*ARGUMENTS), model(*ARGUMENTS)
    assert list(found) == list(wanted)
    assert (found["none"], found["count"], found["limit"], found["word"]) == (None, 2, math.inf, "text")
    assert found["boxes"]._fields == ("box", "label")
    assert type(found["boxes"].label[1]) is list
    assert found["answer"]._fields == ("logits", "attention") and found["answer"].attention is None
    assert found[7]._fields == ("values", "indices")
    assert found["empty"] == {}
    torch.testing.assert_close(found["boxes"].box, wanted["boxes"].box, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["answer"].logits, wanted["answer"].logits, atol=1e-5, rtol=1e-4)


def test_names_of_tensors(built: Built) -> None:
    assert [spec.name for spec in built.inputs] == ["x", "batch.image", "batch.unused", "pair.0.a", "pair.1.0"]
    assert [spec.name for spec in built.outputs] == [
        "logits", "boxes.box", "boxes.label.0", "boxes.label.1.0", "table", "same", "answer.logits", "7.values",
        "7.indices", "again",
    ]  # fmt: skip
    assert built.signature.constants() == {
        "none": None, "count": 2, "limit": math.inf, "word": "text", "answer.attention": None,
    }  # fmt: skip


CALLS: dict[str, tuple[Callable[[Built], Any], str]] = {
    "nothing": (lambda m: m.run(), "input 'x' is missing; give 'x', 'batch', 'pair', 'mask', 'scale'"),
    "a default that was another": (
        lambda m: m.run(*ARGUMENTS[:3]),
        "input 'scale' is missing",
    ),
    "too many": (lambda m: m.run(*ARGUMENTS, X), "takes 5 inputs by position, got 6"),
    "unknown": (lambda m: m.run(*ARGUMENTS, more=B), "was compiled without an input 'more'; give .* with an example"),
    "twice": (lambda m: m.run(*ARGUMENTS, x=X), "input 'x' was given twice"),
    "another number": (
        lambda m: m.run(*ARGUMENTS[:4], 2.0),
        r"input 'scale' is 2.0, but the model was compiled for 0.5",
    ),
    "a tensor for None": (lambda m: m.run(*ARGUMENTS[:3], X, 0.5), "input 'mask' is a Tensor, but .* for None"),
    "no dict": (
        lambda m: m.run(X, IMAGE, *ARGUMENTS[2:]),
        "input 'batch' must be a dict with 'image', 'unused', got T",
    ),
    "a key that lacks": (
        lambda m: m.run(X, {"image": IMAGE}, *ARGUMENTS[2:]),
        "input 'batch' lacks 'unused'; it must have 'image', 'unused'",
    ),
    "a key too many": (
        lambda m: m.run(X, {"image": IMAGE, "unused": A, "b": A}, *ARGUMENTS[2:]),
        "input 'batch' has 'b', which it had not when",
    ),
    "a list too long": (
        lambda m: m.run(*ARGUMENTS[:2], (Point(A), [B, B]), *ARGUMENTS[3:]),
        "input 'pair.1' must be a list of 1, got list of 2",
    ),
    "a shape within": (
        lambda m: m.run(X, {"image": X, "unused": A}, *ARGUMENTS[2:]),
        "input 'batch.image' must be float32 2x4, got float32 2x8",
    ),
}


@pytest.mark.parametrize(("call", "message"), CALLS.values(), ids=CALLS)
def test_other_calls_are_refused_by_name(
    built: Built, loaded: Built, call: Callable[[Built], Any], message: str
) -> None:
    for compiled in (built, loaded):
        with pytest.raises(InputError, match=message):
            call(compiled)


def of(forward: Callable[..., Any]) -> nn.Module:
    """A model with one layer and this forward."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 4)

    function = FunctionType(forward.__code__.replace(co_name="forward"), forward.__globals__, "forward")
    Model.forward = function  # type: ignore[method-assign, assignment]
    return Model().eval()


RESULTS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "one tensor": lambda m, x: m.layer(x),
    "a tuple of one": lambda m, x: (m.layer(x),),
    "a list": lambda m, x: [m.layer(x), x],
    "None beside a tensor": lambda m, x: (m.layer(x), None),
    "a number and a flag": lambda m, x: (m.layer(x), 3, 2.5, True),
    "a named tuple in a list": lambda m, x: [Cell(m.layer(x), (x, None))],
    "an ordered dict": lambda m, x: collections.OrderedDict(b=m.layer(x), a=x),
    "keys with points": lambda m, x: {"a.b": m.layer(x), "a": {"b": x}, "output0": x},
}


@pytest.mark.parametrize("forward", RESULTS.values(), ids=RESULTS)
def test_results_through_pruning_compiling_and_bundles(
    forward: Callable[[nn.Module, Tensor], Any], tmp_path: Path
) -> None:
    model = of(forward)
    compact = reconvene.compact(model, (X,)).module
    built = reconvene.compile(compact, (X,), check_inputs=[(X + 1,)])
    same(built.run(X), model(X))
    names = [spec.name for spec in built.outputs]
    assert len(set(names)) == len(names)
    again = load_bundle(built.export(tmp_path / "bundle")).run(X)
    assert len(pytree.tree_leaves(again)) == len(pytree.tree_leaves(model(X)))


def test_what_gives_no_tensor_is_refused() -> None:
    with pytest.raises(reconvene.ReconveneError, match="gives no tensor"):
        compile(of(lambda m, x: {"n": None}), (X,))


def test_a_program_of_a_bundle_takes_tensors_in_order(tmp_path: Path) -> None:
    model = of(lambda m, x: {"cell": Cell(m.layer(x["a"]) - x["b"], None)})
    given = {"a": X, "b": A}
    built = compile(model, (given,))
    bundle = open_bundle(built.export(tmp_path / "bundle", runtime="none"))
    found = run_bundle(bundle, bundle.signature.tensors((), {"x": given}))
    same(bundle.signature.returned(found)["cell"].state, model(given)["cell"].state)
    assert [spec.name for spec in bundle.outputs] == ["cell.state"]


def test_signatures_as_plain_data_come_back(built: Built) -> None:
    text = json.dumps(built.signature.plain(), allow_nan=False)
    assert Signature.from_plain(json.loads(text)) == built.signature


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "code for a field": lambda s: s["result"].update(kind="fields", name="__import__('os')", keys=["a b"]),
    "fewer tensors": lambda s: s["arguments"].pop(0),
    "an unknown kind": lambda s: s["result"].update(kind="set"),
    "no result": lambda s: s.pop("result"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_manifests_that_make_no_sense(built: Built, tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Though all its checksums are right."""
    folder = built.export(tmp_path / "bundle")
    edit(folder, lambda manifest: change(manifest["signature"]))
    with pytest.raises(InputError, match="is not usable"):
        load_bundle(folder)


def test_positional_names_of_many_inputs() -> None:
    class Many(nn.Module):
        def forward(self, *images: Tensor, **named: Tensor) -> Mapping[str, Tensor]:
            return {"sum": images[0] + images[1], **named}

    exported = reconvene.capture(Many().eval(), (A, B))
    built = reconvene.compile(exported, (A, B))
    assert [spec.name for spec in built.inputs] == ["images_0", "images_1"]
    np.testing.assert_allclose(built.run(A, B)["sum"], A + B, rtol=1e-5)


class Plain(nn.Module):
    """Gives what needs no kernel: its input, its weights, numbers that it stores, and one value twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.layer(x)
        return y, y * 1, x, x + 0, x.reshape(8, 2).clone(), self.layer.bias * 1, torch.arange(3.0), self.layer.weight


def test_outputs_are_the_callers_to_write_to(tmp_path: Path) -> None:
    model, x = Plain().eval(), torch.randn(2, 8)
    built = compile(model, (x,))
    loaded = load_bundle(built.export(tmp_path / "bundle", runtime="python"))
    want, given = [value.detach().clone() for value in model(x)], x.clone()
    for program in (built, built.clone(), loaded):
        for _ in range(2):
            found = program.run(x)
            for ours, right in zip(found, want, strict=True):
                torch.testing.assert_close(ours.detach(), right)
                ours.detach().fill_(7.0)
            assert torch.equal(x, given)

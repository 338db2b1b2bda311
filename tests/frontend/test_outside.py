"""What forward or a hook keeps outside of the model is as it was after a capture, and refused where results depend on it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reconvene
from reconvene.frontend.base.errors import CaptureError
from reconvene.frontend.outside import outside_of, preserved_outside

from ..support import caches

SUMS: dict[str, Tensor] = {}
SEEN: list[Tensor] = []
GRIDS: dict[int, Tensor] = {}


class Summing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        SUMS["sum"] = SUMS.get("sum", torch.zeros_like(x)) + x
        return SUMS["sum"] * 2


def remembered(x: Tensor) -> Tensor:
    SEEN.append(x)
    return SEEN[0] + x


class ByAnother(nn.Module):
    """The list is written by a function that forward calls."""

    def forward(self, x: Tensor) -> Tensor:
        return remembered(x)


class Cached(nn.Module):
    """Keeps what is the same in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-1]
        if size not in GRIDS:
            GRIDS[size] = torch.arange(size, dtype=x.dtype)
        y: Tensor = self.layer(x) + GRIDS[size]
        return y


@pytest.fixture(autouse=True)
def _empty() -> None:
    for kept in (SUMS, SEEN, GRIDS):
        kept.clear()


@pytest.mark.parametrize(("model", "name"), [(Summing, "SUMS"), (ByAnother, "SEEN")])
def test_state_outside_is_refused_by_name(model: type[nn.Module], name: str) -> None:
    with pytest.raises(CaptureError, match=f"'{name}', which lies outside of {model.__name__}.*register_buffer"):
        reconvene.compile(model().eval(), (torch.randn(2, 3),))
    assert not SUMS and not SEEN


def test_a_cache_outside_is_no_state_and_left_alone() -> None:
    model, x = Cached().eval(), torch.randn(1, 3, 4, 4)
    built = reconvene.compile(model, (x,))
    assert not GRIDS
    torch.testing.assert_close(built.run(x), model(x))
    assert type(GRIDS[4]) is Tensor


def remembering() -> Callable[[int], Tensor]:
    """A function with a memory of its own."""
    known: dict[int, Tensor] = {}

    def grid(size: int) -> Tensor:
        if size not in known:
            known[size] = torch.arange(size, dtype=torch.float32)
        return known[size]

    return grid


class Closures(nn.Module):
    """Two functions as attributes, whose memories have one name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)
        self.rows, self.columns = remembering(), remembering()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x) + self.rows(x.shape[-2])[:, None] + self.columns(x.shape[-1])
        return y


@functools.cache
def halves(size: int) -> Tensor:
    return torch.arange(size) / 2


class CachedFunctions(Closures):
    """What ``functools`` remembers: of a method, of an attribute, and of a function that a method calls."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = functools.lru_cache(remembering())

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def grid(self, size: int) -> Tensor:
        return torch.arange(size, dtype=torch.float32)

    def anchors(self, size: int) -> Tensor:
        return halves(size) + self.grid(size)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x) + self.kept(x.shape[-1]) + self.anchors(x.shape[-1])
        return y


class ByAMethod(Closures):
    """The dict is reached by a method that forward calls."""

    def grid(self, size: int) -> Tensor:
        if size not in GRIDS:
            GRIDS[size] = torch.arange(size, dtype=torch.float32)
        return GRIDS[size]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x) + self.grid(x.shape[-1])
        return y


@pytest.mark.parametrize("kind", [Closures, CachedFunctions, ByAMethod])
def test_functions_with_memories_remember_no_stand_ins(kind: type[nn.Module]) -> None:
    halves.cache_clear()
    model, x = kind(), torch.randn(1, 3, 4, 4)
    module = reconvene.capture(model, x)
    assert not GRIDS
    found = model.eval()(x)
    assert type(found) is Tensor
    torch.testing.assert_close(module(x), found)
    again = reconvene.capture(model, x)  # Now that they remember something.
    torch.testing.assert_close(again(x), found)
    assert type(model(x)) is Tensor


def test_what_a_hook_keeps_is_as_it_was() -> None:
    store: dict[str, Any] = {"before": 1}
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    model[0].register_forward_hook(lambda module, inputs, output: store.update(features=output))
    module = reconvene.prune(model, (torch.randn(2, 4),)).module
    assert store == {"before": 1}
    x = torch.randn(2, 4)
    model(x)
    assert type(store["features"]) is Tensor and module(x).shape == (2, 2)


def test_a_failure_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CaptureError, match="does not run on the example input"):
        reconvene.capture(nn.Conv2d(3, 4, 1), (torch.randn(1, 3, 4, 4, dtype=torch.float16),))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_batch_that_cannot_vary_is_nothing_to_report(caplog: pytest.LogCaptureFixture) -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(1, -1) @ x.new_ones(12, 3)

    module = reconvene.capture(Flat(), (torch.randn(3, 4),))
    assert module.meta["input_sizes"].reasons
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


PLACES: dict[str, Callable[[int], Tensor]] = {
    "functools.cache": lambda size: caches.remembered(size),
    "a dict": lambda size: caches.in_a_dict(size),
    "global": lambda size: caches.bound_anew(size),
    "a new global": lambda size: caches.first_bound(size),
    "a dict of a class": lambda size: caches.Rope.in_its_dict(size),
    "an attribute of a class": lambda size: caches.Rope.as_attribute(size),
    "a default": lambda size: caches.by_default(size),
    "a keyword's default": lambda size: caches.by_keyword_default(size),
    "an attribute of a function": lambda size: caches.on_itself(size),
    "nonlocal": lambda size: caches.enclosed(size),
    "an object": lambda size: caches.of_an_object(size),
    "slots": lambda size: caches.of_slots(size),
    "a namespace": lambda size: caches.in_a_namespace(size),
    "told elsewhere": lambda size: caches.told_elsewhere(size),
    "a dict of functions": lambda size: caches.dispatched(size),
    "globals()": lambda size: caches.by_globals(size),
    "a UserDict": lambda size: caches.in_a_dict_of_python(size),
    "a metaclass": lambda size: caches.OfMeta.table(size),
    "imported in the function": lambda size: caches.imported_late(size),
}


class Adding(nn.Module):
    def __init__(self, table: Callable[[int], Tensor]) -> None:
        super().__init__()
        self.layer, self.table = nn.Linear(4, 4), table

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x) + self.table(4)
        return y


@pytest.mark.parametrize("place", PLACES)
def test_no_place_outside_keeps_stand_ins(place: str) -> None:
    model, x = Adding(PLACES[place]).eval(), torch.randn(2, 4)
    for _ in range(2):  # With the place empty, and as a capture leaves it.
        module = reconvene.capture(model, (x,))
    found = model(x)
    assert type(found) is Tensor and torch.equal(found, model.layer(x) + torch.arange(4))
    torch.testing.assert_close(module(x), found)
    kept = PLACES[place](4)  # Now that it is full, it stays so.
    reconvene.capture(model, (x,))
    assert PLACES[place](4) is kept


_MASK: Tensor | None = None


class OwnFile(nn.Module):
    """Binds a global of its own file."""

    def forward(self, x: Tensor) -> Tensor:
        global _MASK
        if _MASK is None:
            _MASK = torch.arange(x.shape[-1], dtype=x.dtype)
        return x * _MASK


def test_a_global_of_the_own_file_is_as_it_was_after_a_failure_too() -> None:
    class Failing(OwnFile):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y if y.sum() > 0 else -y

    for model in (OwnFile(), Failing()):
        try:
            reconvene.capture(model.eval(), (torch.ones(2, 3),))
        except CaptureError:
            assert isinstance(model, Failing)
        assert _MASK is None


_total: Tensor | None = None


class BoundState(nn.Module):
    """What a global is bound to decides the next result."""

    def forward(self, x: Tensor) -> Tensor:
        global _total
        _total = x if _total is None else _total + x
        return _total * 2


class OnAClass(nn.Module):
    sums: dict[str, Tensor] = {}  # noqa: RUF012

    def forward(self, x: Tensor) -> Tensor:
        self.sums["all"] = self.sums.get("all", torch.zeros_like(x)) + x
        return self.sums["all"] * 2


@pytest.mark.parametrize(("model", "name"), [(BoundState, "_total"), (OnAClass, r"OnAClass\.sums")])
def test_state_in_globals_and_classes_is_refused_by_name(model: type[nn.Module], name: str) -> None:
    with pytest.raises(CaptureError, match=f"'{name}', which lies outside of {model.__name__}.*register_buffer"):
        reconvene.capture(model().eval(), (torch.randn(2, 3),))
    assert _total is None and not OnAClass.sums


NOTES: list[Any] = ["before"]
asked: list[int] = []


@functools.cache
def doubled(size: int) -> int:
    asked.append(size)
    return size * 2


class Noting(nn.Module):
    """Notes no tensors, as another thread may do meanwhile, and asks a memory for numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        NOTES.append("seen")
        NOTES.append(x)
        NOTES.pop()
        y: Tensor = self.layer(x) * doubled(4)
        return y


def test_what_is_no_tensor_stays() -> None:
    for size in (1, 2, 3):
        doubled(size)
    reconvene.capture(Noting().eval(), (torch.randn(2, 4),))
    assert NOTES[0] == "before" and set(NOTES[1:]) <= {"seen"}
    assert [doubled(size) for size in (1, 2, 3, 4)] == [2, 4, 6, 8] and asked == [1, 2, 3, 4]


def test_more_defaults_than_arguments_are_nothing_to_stumble_over() -> None:
    def table(*sizes: int) -> Tensor:
        return torch.arange(sizes[0], dtype=torch.float32)

    table.__defaults__ = (1, {}, "x")  # As decorators write them.
    model, x = Adding(table).eval(), torch.randn(2, 4)
    torch.testing.assert_close(reconvene.capture(model, (x,))(x), model(x))


STEPS = {"data": torch.zeros(1).expand(1 << 25), "sparse": torch.eye(2).to_sparse(), "steps": torch.zeros(1)}


def test_what_is_written_into_small_tensors_outside_is_taken_back() -> None:
    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                STEPS["steps"].add_(1)
            return x + STEPS["data"][0]

    with pytest.raises(CaptureError), preserved_outside(model := Counting()):
        model(torch.ones(1))
        assert STEPS["steps"] == 1
        raise CaptureError
    assert STEPS["steps"] == 0
    assert [tensor.numel() for tensor in outside_of(model).tensors] == [1]  # The others are data, and not plain.

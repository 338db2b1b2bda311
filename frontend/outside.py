"""Places outside of a model that its own code, its hooks and what these call can write to.

torch.export runs that code on stand-ins for tensors. A cache in a module-level dict, a global name that is bound anew, a list
that a hook's closure holds, a default argument, an attribute of a function, of a class or of an object there, or the memory of
``functools.cache`` is left full of them, and what one call leaves there for the next is no part of the graph.
"""

from __future__ import annotations

import collections
import functools
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram

from .attributes import call_outputs, close_outputs, other_inputs
from .base.errors import CaptureError
from .outside_places import Attributes, Cells, ClassAttributes, Entries, Place, Row, Slots, slots_of
from .snapshot import preserved
from .stand_ins import Memory

__all__ = ["Outside", "check_kept_outside", "outside_of", "preserved_outside"]

_THIS = __name__.partition(".")[0]
_LIBRARIES = ("torch.", "torchvision.", "timm.", "numpy.", "builtins", f"{_THIS}.")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_HOLDERS = (
    SimpleNamespace,
    threading.local,
    collections.ChainMap,
    collections.UserDict,
    collections.UserList,
    weakref.WeakKeyDictionary,
    weakref.WeakValueDictionary,
)
"""Classes of Python whose objects hold whatever a person puts there."""
_CALLS = MethodType | property | staticmethod | classmethod | functools.partial | functools.cached_property
_MOST_FOLLOWED = 10_000
"""Entries of a container that are followed: what has more of them is data."""
_MOST_COPIED = 1 << 26
"""Bytes of tensors that are copied, all together, to undo what is written into them: a data set that code can reach is not."""


@dataclass
class Outside:
    """What code of a model reaches outside of it.

    Attributes:
        places: that hold values, as they were.
        memories: of ``functools.cache`` and ``lru_cache``, as they were.
        tensors: that lie in the places.
    """

    places: list[Place] = field(default_factory=list)
    memories: list[Memory] = field(default_factory=list)
    tensors: list[torch.Tensor] = field(default_factory=list)

    def changed(self) -> list[str]:
        """Names, as the code has them, of what is not as it was."""
        return [name for place in self.places for name in place.changed()]

    def restore(self) -> None:
        """Takes out tensors that came in, and puts back what was there."""
        traced = any(memory.took_tensors() for memory in self.memories) or any(
            place.took_tensors() for place in self.places
        )
        for memory in self.memories:
            memory.restore()
        for place in self.places:
            place.restore(traced)


@contextmanager
def preserved_outside(model: nn.Module) -> Iterator[None]:
    """After the block, tensors and stand-ins that came into places outside of `model` are out, and what was there is back.

    What was added and is no tensor (another thread's note in a log, a shape that ``functools.cache`` remembers) stays in lists
    and sets, and elsewhere if no tensor came in anywhere. A function with a memory forgets all of it if a tensor came in.
    """
    outside = outside_of(model)
    with preserved(nn.Module(), tuple(outside.tensors)):
        try:
            yield
        finally:
            outside.restore()


def outside_of(model: nn.Module) -> Outside:
    """Everything that code of the model's own can reach."""
    walk = _Walk(model)
    kinds: set[type] = set()
    for module in model.modules():
        kinds |= set(type(module).__mro__)
        held = [value for value in vars(module).values() if callable(value) and not isinstance(value, nn.Module)]
        hooks = [hook for name in _HOOKS for hook in getattr(module, name, {}).values()]
        for value in (*held, *hooks):
            walk.look("", value)
    for kind in sorted(kinds - {object}, key=lambda kind: kind.__qualname__):
        if not kind.__module__.startswith(_LIBRARIES):
            walk.look(kind.__name__, kind)
            for value in (value for value in vars(kind).values() if callable(value) or hasattr(value, "__get__")):
                walk.look(kind.__name__, value)
    return walk.finish()


class _Walk:
    """Follows names from code to what they are."""

    def __init__(self, model: nn.Module) -> None:
        self.found = Outside()
        self._inside = set(map(id, model.modules()))
        self._copied_left = _MOST_COPIED
        self._seen: dict[Any, Any] = {}  # With the values, so that no id is used twice.
        self._pending: list[tuple[str, Any, frozenset[str]]] = []

    def look(self, name: str, value: Any, names: frozenset[str] = frozenset()) -> None:
        """Follows what code has under `name`; of modules only what it says in `names`."""
        self._pending.append((name, value, names))

    def finish(self) -> Outside:
        while self._pending:
            name, value, names = self._pending.pop()
            key = (id(value), names) if isinstance(value, ModuleType) else id(value)
            if value is None or isinstance(value, str | bytes | int | float) or key in self._seen:
                continue
            self._seen[key] = value
            self._follow(name, value, names)
        return self.found

    def _follow(self, name: str, value: Any, names: frozenset[str]) -> None:
        if isinstance(value, torch.Tensor):
            plain = value.layout == torch.strided and not isinstance(value, FakeTensor)
            if plain and value.nbytes <= self._copied_left:
                self._copied_left -= value.nbytes
                self.found.tensors.append(value)
        elif isinstance(value, dict | list | set | tuple | frozenset | collections.deque):
            self._container(name, value)
        elif isinstance(value, ModuleType):
            if _is_own(value.__name__):
                self._attributes("", vars(value), names)
        elif isinstance(value, type):
            self._class(value)
        elif callable(value) or isinstance(value, _CALLS):
            self._callable(name, value)
        else:
            self._object(name, value)

    def _container(self, name: str, value: Any) -> None:
        if isinstance(value, dict):
            self.found.places.append(Entries(name, value))
        elif not isinstance(value, tuple | frozenset):
            self.found.places.append(Row(name, value))
        if len(value) <= _MOST_FOLLOWED:
            for part in list(value.values() if isinstance(value, dict) else value):
                self.look(name, part)

    def _callable(self, name: str, value: Any) -> None:
        if isinstance(value, functools._lru_cache_wrapper):
            if not (value.__module__ or "").startswith(_LIBRARIES):
                self.found.memories.append(Memory(value))
                self.look(name, value.__wrapped__)
        elif isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, _CALLS):
            for part in ("__self__", "__func__", "fget", "fset", "func", "args", "keywords"):
                self.look(name, getattr(value, part, None))
        else:
            self._object(name, value)

    def _function(self, function: FunctionType) -> None:
        if (function.__module__ or "").startswith(_LIBRARIES):
            return
        names = frozenset(_names(function.__code__))
        self._attributes("", function.__globals__, names)
        if "globals" in names:  # ``globals()[...]`` may write any name.
            self.found.places.append(Attributes("", function.__globals__))
        # What it imports when it runs.
        for name in names - function.__globals__.keys():
            self.look(name, sys.modules.get(name), names)
        if function.__closure__:
            cells = Cells(function)
            self.found.places.append(cells)
            for name, value in cells.before.items():
                self.look(name, value, names)
        arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
        defaults = function.__defaults__ or ()  # More than there are arguments, where a decorator has written them.
        for name, value in zip((*reversed(arguments), *[""] * len(defaults)), reversed(defaults), strict=False):
            self.look(name, value)
        for name, value in (function.__kwdefaults__ or {}).items():
            self.look(name, value)
        self._attributes(function.__name__, vars(function), None)

    def _attributes(self, name: str, held: dict[str, Any], names: frozenset[str] | None) -> None:
        place = Attributes(name, held, names)
        self.found.places.append(place)
        for key, value in place.before.items():
            self.look(place.shown(key), value, names or frozenset())

    def _class(self, kind: type) -> None:
        if not _is_own(kind.__module__):
            return
        self.found.places.append(ClassAttributes(kind))
        for name, value in list(vars(kind).items()):
            if not (name.startswith("__") and name.endswith("__")) or isinstance(value, FunctionType):
                self.look(f"{kind.__name__}.{name}", value)
        for base in (*kind.__mro__[1:], type(kind)):
            self.look(base.__name__, base)

    def _object(self, name: str, value: Any) -> None:
        kind = type(value)
        if id(value) in self._inside or not (_is_own(kind.__module__) or isinstance(value, (*_HOLDERS, nn.Module))):
            return
        held = getattr(value, "__dict__", None)
        if isinstance(held, dict):
            self._seen[id(held)] = held  # Its entries are its attributes.
            self._attributes(name or kind.__name__, held, None)
        if any(slots_of(kind)):
            slots = Slots(name or kind.__name__, value)
            self.found.places.append(slots)
            for key, part in slots.before.items():
                self.look(slots.shown(key), part)
        self.look(kind.__name__, kind)


@functools.cache
def _is_own(module: str) -> bool:
    """Whether a module is a person's own: none of Python, of an installed package, or of this one."""
    top = module.partition(".")[0]
    if top in ("torch", "numpy", _THIS) or top in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return not {"site-packages", "dist-packages"} & set(Path(file).parts)


def _names(code: CodeType) -> Iterator[str]:
    """What code looks up, that of the functions within it, too."""
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _names(part)


def check_kept_outside(
    model: nn.Module, program: ExportedProgram, inputs: tuple[tuple[Any, ...], dict[str, Any]], changed: Sequence[str]
) -> None:
    """Compares `model`, whose code writes to `changed`, with its program over three calls in turn.

    What is only kept to be looked at, or is the same in every call, is no state.

    Raises:
        CaptureError: a result depends on what an earlier call left there.
    """
    calls = [inputs, other_inputs(inputs), inputs]
    with torch.no_grad():
        expected = [call_outputs(model, call) for call in calls]
        graph = program.module(check_guards=False)
        found = [call_outputs(graph, call) for call in calls]
    if None not in expected and not all(map(close_outputs, expected, found)):
        raise CaptureError(
            f"'{changed[0]}', which lies outside of {type(model).__name__}, is kept from one call to the next; only buffers are"
            " state that a graph can carry: self.register_buffer(...) in __init__, and write a tensor of that shape"
        )

"""Where the batches of a training come from. What a batch holds depends on seed, epoch and step only, whoever makes it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ...frontend.base.errors import InputError
from ...frontend.base.own_code import failure
from ...frontend.data.datasets import Images
from .batches import Batches, generator_for

__all__ = ["Batch", "Data", "Source", "Way", "recorded_data", "source_of", "steps_per_epoch"]

Data = Images | Dataset[Any] | DataLoader[Any]
"""Labelled images in memory; or items, each a pair of inputs and target; or batches of such pairs."""

_TEST_BATCH = 256


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step is made on, on the device that trains."""

    inputs: tuple[Any, ...]
    """Of the model, by position."""
    named: Mapping[str, Any]
    """The same by name."""
    targets: Any
    count: int
    """Of items."""
    labels: tuple[int, int] | None = None
    """Smallest and largest of the targets, where these are whole numbers, one to an item."""


@dataclass(frozen=True)
class Way:
    """How batches are made."""

    size: int
    """Items in one, where the data do not say."""
    count: int = 0
    """Items that are used, 0 for all."""
    augment: str = "none"
    seed: int = 0
    workers: int = 0
    """Processes that make items beside the training."""


class Source(Protocol):
    """Batches of one data set."""

    @property
    def name(self) -> str:
        """Of the data set."""

    def __len__(self) -> int:
        """Items."""

    @property
    def steps(self) -> int:
        """Batches in an epoch of training. Raises InputError if there are none."""

    def training(self, epoch: int, begin: int, end: int) -> Iterator[Batch]:
        """The batches of these steps of an epoch."""

    def items(self, begin: int, end: int) -> int | None:
        """How many items the batches of these steps have together; None where only they tell."""

    def plain(self) -> Iterator[Batch]:
        """Every item once, unchanged, for tests."""

    def sample(self) -> Batch:
        """One batch, as in training, to look at."""


def source_of(data: Data, way: Way, device: torch.device) -> Source:
    """The batches of images, items, or batches.

    Raises:
        InputError: there are fewer than `way.count`, or they cannot be counted.
    """
    if isinstance(data, Images):
        labels = (int(data.labels.min()), int(data.labels.max())) if len(data) else None
        return _Pixels(data.name, Batches.of(data, way.count, device), way, labels)
    if isinstance(data, DataLoader):
        if isinstance(data.dataset, IterableDataset) or not hasattr(data.dataset, "__len__"):
            raise InputError(
                "a loader over a stream has no end that could be counted; give one over a data set with a length"
            )
        if way.count:
            raise InputError(
                f"a loader gives all of its items; leave out the limit of {way.count}, or give its data set"
            )
        return _Loaded(type(data.dataset).__name__, data, way, device)
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise InputError(
            f"a {type(data).__name__} is no data for training; give a torch Dataset with __len__ and __getitem__, or a"
            " DataLoader"
        )
    length = len(data)  # type: ignore[arg-type]
    if way.count > length:
        raise InputError(f"{type(data).__name__} has {length} items, fewer than {way.count}")
    return _Items(type(data).__name__, data, way.count or length, way, device)


def steps_per_epoch(data: Data, size: int, count: int = 0) -> int:
    """Steps in one pass over `count` items of the data (0: all), `size` a batch where the data do not say.

    Raises:
        InputError: there are too few for a single one.
    """
    if isinstance(data, DataLoader):
        if not len(data):
            raise InputError("the loader gives no batches; its data set has fewer items than one, or none")
        return len(data)
    items = count or len(data)  # type: ignore[arg-type]
    if items < size:
        raise InputError(f"{items} training images are fewer than one batch of {size}")
    return items // size


def recorded_data(*sets: Data) -> list[Any]:
    """What of data says which training it is: names, lengths, and contents where the name does not tell them."""
    found: list[Any] = []
    digests = []
    for data in sets:
        items = data.dataset if isinstance(data, DataLoader) else data
        found += [items.name if isinstance(items, Images) else type(items).__name__, len(items)]  # type: ignore[arg-type]
        digests += [items.digest] if isinstance(items, Images) and items.digest else []
    return found + digests


@dataclass(frozen=True, eq=False)
class _Pixels:
    """Images in memory, changed a batch at a time."""

    name: str
    batches: Batches = field(repr=False)
    way: Way
    labels: tuple[int, int] | None

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def steps(self) -> int:
        return steps_per_epoch(self, self.way.size)  # type: ignore[arg-type]

    def training(self, epoch: int, begin: int, end: int) -> Iterator[Batch]:
        order = self.batches.order(self.way.seed, epoch)
        for step in range(begin, end):
            generator = generator_for(self.way.seed, 1, epoch, step)
            yield self._batch(*self.batches.training(order, step, self.way.size, self.way.augment, generator))

    def items(self, begin: int, end: int) -> int | None:
        return (end - begin) * self.way.size

    def plain(self) -> Iterator[Batch]:
        for start in range(0, len(self), _TEST_BATCH):
            yield self._batch(*self.batches.plain(start, _TEST_BATCH))

    def sample(self) -> Batch:
        return self._batch(*self.batches.plain(0, self.way.size))

    def _batch(self, images: Tensor, labels: Tensor) -> Batch:
        return Batch((images,), {}, labels, len(labels), self.labels)


@dataclass(frozen=True, eq=False)
class _Items:
    """Items of a person's data set, each made with random numbers of its own, in whichever process."""

    name: str
    data: Any = field(repr=False)
    count: int
    way: Way
    device: torch.device

    def __len__(self) -> int:
        return self.count

    @property
    def steps(self) -> int:
        return steps_per_epoch(self, self.way.size)  # type: ignore[arg-type]

    def training(self, epoch: int, begin: int, end: int) -> Iterator[Batch]:
        order = torch.randperm(self.count, generator=generator_for(self.way.seed, 0, epoch)).tolist()
        size = self.way.size
        yield from self._made([order[step * size : (step + 1) * size] for step in range(begin, end)], epoch)

    def items(self, begin: int, end: int) -> int | None:
        return (end - begin) * self.way.size

    def plain(self) -> Iterator[Batch]:
        size = max(1, min(self.way.size, _TEST_BATCH))
        yield from self._made([list(range(at, min(at + size, self.count))) for at in range(0, self.count, size)], 0)

    def sample(self) -> Batch:
        return next(iter(self._made([list(range(min(self.way.size, self.count)))], 0)))

    def _made(self, places: Sequence[Sequence[int]], epoch: int) -> Iterator[Batch]:
        keys = [[(place, (self.way.seed, 4, epoch, place)) for place in batch] for batch in places]
        loader = DataLoader(
            _Seeded(self.data),
            batch_sampler=keys,  # type: ignore[arg-type]
            num_workers=self.way.workers,
            generator=torch.Generator(),  # Or else the workers' seed would be drawn from the training's.
        )
        batches = iter(loader)
        for _ in keys:
            try:
                made = next(batches)
            except Exception as error:
                raise failure(f"an item of {self.name} cannot be made", error) from error
            yield _batch(made, self.device, f"an item of {self.name}")


class _Seeded(Dataset[Any]):
    """Items by place and seed."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __getitem__(self, key: Any) -> Any:
        place, numbers = key
        with seeded(generator_for(*numbers).initial_seed()):
            return self.data[place]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The random numbers of PyTorch, NumPy and Python begin at `seed` within the block, and go on afterwards as before."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % (1 << 32))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@dataclass(frozen=True, eq=False)
class _Loaded:
    """Batches of a person's loader, which it makes in its own order."""

    name: str
    loader: DataLoader[Any] = field(repr=False)
    way: Way
    device: torch.device

    def __len__(self) -> int:
        return len(self.loader.dataset)  # type: ignore[arg-type]

    @property
    def steps(self) -> int:
        return steps_per_epoch(self.loader, self.way.size)

    def training(self, epoch: int, begin: int, end: int) -> Iterator[Batch]:
        """A loader gives its batches from the first: those before `begin` are made, and not used."""
        for step, made in zip(range(end), self._from(epoch), strict=False):
            if step >= begin:
                yield _batch(made, self.device, f"a batch of {self.name}")

    def items(self, begin: int, end: int) -> int | None:
        return None

    def plain(self) -> Iterator[Batch]:
        for made in self._from(0):
            yield _batch(made, self.device, f"a batch of {self.name}")

    def sample(self) -> Batch:
        return next(self.training(0, 0, 1))

    def _from(self, epoch: int) -> Iterator[Any]:
        """Batches of an epoch: whatever is drawn for one of them is drawn from a seed of its own."""
        if self.loader.generator is not None:
            self.loader.generator.manual_seed(generator_for(self.way.seed, 5, epoch).initial_seed())
        with seeded(generator_for(self.way.seed, 6, epoch).initial_seed()):
            batches = iter(self.loader)
        for step in range(len(self.loader)):
            with seeded(generator_for(self.way.seed, 7, epoch, step).initial_seed()):
                try:
                    made = next(batches)
                except StopIteration:
                    return
                except Exception as error:
                    raise failure(f"a batch of {self.name} cannot be made", error) from error
            yield made


def _batch(made: Any, device: torch.device, what: str) -> Batch:
    """A collated pair of inputs and targets. Raises InputError if it is none."""
    if not isinstance(made, tuple | list) or len(made) != 2:
        kind = f"{type(made).__name__} of {len(made)}" if isinstance(made, tuple | list) else type(made).__name__
        raise InputError(f"{what} is a {kind}; it has to be a pair of inputs and target")
    inputs, targets = made
    first = next((leaf for leaf in pytree.tree_leaves(made) if isinstance(leaf, Tensor) and leaf.dim()), None)
    if first is None:
        raise InputError(f"{what} holds no tensors; give images as tensors, such as with torchvision's ToImage")
    labels = None
    if isinstance(targets, Tensor) and targets.dim() == 1 and not targets.is_floating_point() and targets.numel():
        labels = (int(targets.min()), int(targets.max()))
    inputs, targets = pytree.tree_map_only(Tensor, lambda value: value.to(device), (inputs, targets))
    named = inputs if isinstance(inputs, Mapping) else {}
    by_position = () if named else tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    return Batch(by_position, named, targets, len(first), labels)

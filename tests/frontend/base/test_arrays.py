"""NumPy arrays of every layout are the tensors that a plain copy of them is."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

import reconvene
from reconvene.frontend.base.arrays import as_tensor, as_tensors
from reconvene.frontend.base.errors import InputError

PLAIN = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def fields() -> np.ndarray:
    """A column of records: its numbers lie five bytes apart."""
    records = np.zeros(PLAIN.shape, dtype=[("flag", "u1"), ("value", "<f4")])
    records["value"] = PLAIN
    return records["value"]


LAYOUTS: dict[str, Callable[[], np.ndarray]] = {
    "backwards": lambda: PLAIN[::-1],
    "backwards along the last axis": lambda: PLAIN[..., ::-1],
    "every other one, backwards": lambda: PLAIN[:, ::-2],
    "rotated": lambda: np.rot90(PLAIN, axes=(1, 2)),
    "in Fortran order": lambda: np.asfortranarray(PLAIN),
    "axes swapped": lambda: PLAIN.transpose(2, 0, 1),
    "repeated without a copy": lambda: np.broadcast_to(PLAIN[:1], PLAIN.shape),
    "of other byte order": lambda: PLAIN.astype(">f4"),
    "a field of records": fields,
    "a buffer that nobody may write": lambda: np.frombuffer(PLAIN.tobytes(), np.float32),
    "booleans backwards": lambda: (PLAIN > 3)[::-1],
    "no entries": lambda: PLAIN[:0, ::-1],
    "a number": lambda: np.float32(3.5),  # type: ignore[dict-item, return-value]
}


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_changes_nothing(make: Callable[[], np.ndarray]) -> None:
    array = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = as_tensor(array)
    assert found.dtype == torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="))).dtype
    np.testing.assert_array_equal(found.numpy(), array)


def test_memory_is_shared_where_that_is_possible() -> None:
    array = np.zeros(4)
    as_tensor(array)[1] = 5
    assert array[1] == 5


def test_containers_stay_what_they_are() -> None:
    given = ({"a": PLAIN[::-1], "b": [None, 2, "x"]}, torch.ones(2))
    found = as_tensors(given)
    assert torch.equal(found[0]["a"], torch.from_numpy(PLAIN[::-1].copy()))
    assert (found[0]["b"], found[1]) == ([None, 2, "x"], given[1])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.ma.array([1.0, 2.0], mask=[False, True]), "masked array"),
        (np.array(["a"]), "is of <U1, which PyTorch lacks"),
        (np.array([{}]), "is of object"),
        ([1.0, 2.0], "must be a torch tensor or numpy array, got list"),
        (torch.eye(2).to_sparse(), "sparse_coo; give to_dense"),
        (torch.empty(2, device="meta"), "meta tensor"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(value: object, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        as_tensor(value)


def test_numpy_arrays_are_taken_everywhere() -> None:
    """As examples, masks, batches and inputs; backwards, and read-only."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(32, 4)).eval()
    image = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)[:, ::-1]
    image.flags.writeable = False
    plain = torch.from_numpy(image.copy())
    keep = np.array([False, True] * 4)[::-1]
    assert torch.equal(reconvene.capture(network, (image,))(plain), network(plain))
    compacted = reconvene.compact(network, (image,), {"0.weight": keep, "0.bias": keep})
    assert compacted.report.after.parameters < compacted.report.before.parameters
    labels = np.array([1, 2])[::-1]
    batches = [((np.repeat(image, 2, 0),), labels)]
    pruned = reconvene.prune(network, (image,), method="snip", batches=batches)
    assert pruned.module.get_parameter("0.weight").shape[0] == 4
    built = reconvene.compile(pruned.module, (image,))
    want = pruned.module(plain)
    for guise in (image, np.asfortranarray(image), image.astype(">f4"), np.ascontiguousarray(image)):
        torch.testing.assert_close(built.run(guise), want, atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match="input 'input' must be float32 1x3x4x4, got float64 1x3x4x4"):
        built.run(image.astype(np.float64))

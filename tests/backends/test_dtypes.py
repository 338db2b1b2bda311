"""One table of types of elements, which is right wherever it is read."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import tvm_ffi

from reconvene.backends.dtypes import DTYPES, DType, tensor_bytes, torch_dtype

KNOWN = [kind for kind in DTYPES.values() if kind.name != "bfloat16"]


@pytest.mark.parametrize("kind", DTYPES.values(), ids=DTYPES)
def test_pytorch_and_tvm_know_it_by_its_name(kind: DType) -> None:
    assert torch_dtype(kind.name).itemsize == kind.bytes == tensor_bytes((), kind.name)
    assert torch_dtype(kind.name).is_floating_point == kind.is_floating_point
    if not kind.name.startswith("complex"):  # TVM has none.
        found = tvm_ffi.dtype(kind.name)
        assert (found.type_code, found.bits, found.lanes) == (kind.code, 8 * kind.bytes, 1)


@pytest.mark.parametrize("kind", KNOWN, ids=lambda kind: kind.name)
def test_its_header_in_a_file_is_numpys(kind: DType) -> None:
    if kind.npy is not None:
        written = io.BytesIO()
        np.save(written, np.zeros(3, kind.name))
        assert f"'descr': '{kind.npy}'".encode() in written.getvalue()


@pytest.mark.parametrize("kind", DTYPES.values(), ids=DTYPES)
def test_sums_are_kept_in_a_type_that_holds_every_value(kind: DType) -> None:
    if kind.bytes < 8:
        low, high = (torch.tensor(bound, dtype=torch_dtype(kind.name)) for bound in _bounds(kind))
        for bound in (low, high):
            assert bound.to(torch_dtype(kind.accumulator)).to(bound.dtype) == bound
    assert DTYPES[kind.accumulator].accumulator in (kind.accumulator, "int64", "uint64")


def _bounds(kind: DType) -> tuple[float, float]:
    if kind.name == "bool":
        return False, True
    info = torch.finfo(torch_dtype(kind.name)) if kind.is_floating_point else torch.iinfo(torch_dtype(kind.name))
    return info.min, info.max


def test_bytes_of_a_tensor() -> None:
    assert tensor_bytes((2, 3), "float16") == 12
    assert tensor_bytes((2, 0), "int64") == 0
    with pytest.raises(KeyError):
        tensor_bytes((1,), "float8")

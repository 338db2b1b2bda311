"""Weights as files: one for each large tensor, named by content, mapped."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from reconvene.backends.built import load_bundle
from reconvene.backends.code.weights import map_weights, pack, weight_bytes, write_weights
from reconvene.backends.compile import compile
from reconvene.backends.tensor_spec import ALIGNMENT

ARRAYS = [
    np.arange(8, dtype="int32"),
    np.array(3.0, "float32"),
    np.zeros((0, 3), "float32"),
    np.random.default_rng(0).random((70, 90)).astype("float32"),
    np.array([True, False]),
    np.arange(8, dtype="int32"),
    np.arange(5, dtype="float16"),
    np.random.default_rng(1).integers(-9, 9, (1 << 14,), "int8"),
]


def test_there_and_back(tmp_path: Path) -> None:
    weights = [tvm.runtime.tensor(array) for array in ARRAYS]
    places = write_weights(weights, tmp_path)
    for array, tensor in zip(ARRAYS, map_weights(places, tmp_path), strict=True):
        assert (tensor.shape, str(tensor.dtype)) == (array.shape, str(array.dtype))
        assert np.array_equal(tensor.numpy(), array)
    assert weight_bytes(weights) == sum(array.nbytes for array in ARRAYS)
    # Two are large; the rest is in one file, where the two equal ones are one.
    files = [place.file for place in places]
    assert len(set(files)) == len(list(tmp_path.iterdir())) == 3
    assert (files[0], places[0].offset) == (files[5], places[5].offset)
    for path in tmp_path.iterdir():
        assert path.name == f"weights-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.bin"


@given(st.lists(st.binary(max_size=200), max_size=8), st.sampled_from([8, 64]))
def test_packing(contents: list[bytes], alignment: int) -> None:
    stream = io.BytesIO()
    offsets = pack([np.frombuffer(part, "uint8") for part in contents], stream, alignment)
    written = stream.getvalue()
    assert written and len(written) % alignment == 0
    for part, offset in zip(contents, offsets, strict=True):
        assert offset % alignment == 0 and written[offset : offset + len(part)] == part
    assert len(written) <= max(alignment, sum(-(-len(part) // alignment) * alignment for part in set(contents)))


def network(seed: int) -> nn.Module:
    torch.manual_seed(0)
    shared = nn.Conv2d(16, 64, 3)
    torch.manual_seed(seed)
    return nn.Sequential(shared, nn.ReLU(), nn.Conv2d(64, 48, 3)).eval()


X = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))


def test_bundles_share_what_is_the_same(tmp_path: Path) -> None:
    folders = [compile(network(s), (X,), winograd="off").export(tmp_path / str(s)) for s in (1, 2)]
    large = [
        {path.name for path in folder.glob("weights-*.bin") if path.stat().st_size >= 1 << 14} for folder in folders
    ]
    assert len(large[0]) == len(large[1]) == 2
    (common,) = large[0] & large[1]
    assert (folders[0] / common).read_bytes() == (folders[1] / common).read_bytes()


def test_weights_are_mapped_and_private(tmp_path: Path) -> None:
    folder = compile(network(1), (X,), winograd="off").export(tmp_path / "bundle")
    built = load_bundle(folder)
    expected = built.run(X)
    ranges = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split()
        if len(fields) > 5 and Path(fields[5]).parent == folder.resolve():
            ranges[Path(fields[5]).name] = tuple(int(end, 16) for end in fields[0].split("-"))
    tensors = [torch.from_dlpack(weight) for weight in built.weights]
    assert len(tensors) == 4
    for tensor in tensors:
        start = tensor.data_ptr()
        assert start % ALIGNMENT == 0
        assert any(low <= start and start + tensor.nbytes <= high for low, high in ranges.values())
    before = {path.name: path.read_bytes() for path in folder.glob("weights-*.bin")}
    tensors[0].zero_()
    assert not torch.equal(built.run(X), expected)
    assert {path.name: path.read_bytes() for path in folder.glob("weights-*.bin")} == before
    assert torch.equal(load_bundle(folder).run(X), expected)


@pytest.mark.parametrize("pipeline", ["reconvene", "tvm-default"])
def test_code_holds_no_weights(pipeline: str) -> None:
    small, large = (nn.Linear(size, size).eval() for size in (8, 512))
    sizes = [
        sum(map(len, compile(m, (torch.zeros(1, m.in_features),), pipeline=pipeline).artifact.objects.values()))  # type: ignore[arg-type]
        for m in (small, large)
    ]
    assert sizes[1] < sizes[0] + 32768 < 512 * 512

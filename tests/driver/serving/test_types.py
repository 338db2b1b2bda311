"""Narrow tensors on the wire: bytes of an image in, codes and half floats out, in JSON and raw, for an existing client."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import tritonclient.http as triton
from torch import Tensor, nn

from reconvene.driver.portfolio.build import Options, build_portfolio
from reconvene.driver.portfolio.sources import program_sources
from reconvene.frontend.capture import capture
from reconvene.frontend.program_file import save_program

from .servers import Server, serving

IMAGE = np.random.default_rng(0).integers(0, 256, (1, 6, 5, 3), np.uint8)
CODES = np.random.default_rng(1).integers(-128, 128, (1, 4), np.int8)
HALVES = np.random.default_rng(2).standard_normal((1, 4)).astype(np.float16)
TYPES = {"image": ("UINT8", IMAGE), "codes": ("INT8", CODES), "halves": ("FP16", HALVES)}


class Narrow(nn.Module):
    """Takes and gives tensors of one and two bytes an element."""

    def forward(self, image: Tensor, codes: Tensor, halves: Tensor) -> dict[str, Tensor]:
        moved = (image.to(torch.int32) - 128).to(torch.int8)
        return {"moved": moved, "bytes": 255 - image, "halves": -halves, "sum": codes.float() + halves.float()}


WANTED = {
    "moved": ("INT8", (IMAGE.astype(int) - 128).astype(np.int8)),
    "bytes": ("UINT8", 255 - IMAGE),
    "halves": ("FP16", -HALVES),
    "sum": ("FP32", CODES.astype(np.float32) + HALVES.astype(np.float32)),
}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("narrow")
    inputs = tuple(torch.from_numpy(array) for _, array in TYPES.values())
    save_program(capture(Narrow(), inputs, "fixed"), inputs, place / "narrow.pt2")
    options = Options(repeat=1, compile={"choose": "default"})
    build_portfolio(program_sources([place / "narrow.pt2"]), place / "p", "narrow", options)
    with serving(place / "p", place) as server:
        yield server


@pytest.fixture
def client(narrow: Server) -> Iterator[triton.InferenceServerClient]:
    found = triton.InferenceServerClient(narrow.url.removeprefix("http://"))
    yield found
    found.close()


def asked(binary: bool, **changed: np.ndarray) -> list[triton.InferInput]:
    found = []
    for name, (datatype, array) in TYPES.items():
        array = changed.get(name, array)
        datatype = {"float32": "FP32", "int32": "INT32"}.get(str(array.dtype), datatype)
        found.append(triton.InferInput(name, list(array.shape), datatype))
        # Their client has no JSON for FP16.
        found[-1].set_data_from_numpy(array, binary_data=binary or datatype == "FP16")
    return found


def test_metadata_names_them(client: triton.InferenceServerClient) -> None:
    described = client.get_model_metadata("narrow")
    assert {entry["name"]: entry["datatype"] for entry in described["inputs"]} == {
        name: datatype for name, (datatype, _) in TYPES.items()
    }
    assert {entry["name"]: entry["datatype"] for entry in described["outputs"]} == {
        name: datatype for name, (datatype, _) in WANTED.items()
    }
    kinds = {entry["name"]: entry["data_type"] for entry in client.get_model_config("narrow")["input"]}
    assert kinds == {name: f"TYPE_{datatype}" for name, (datatype, _) in TYPES.items()}


@pytest.mark.parametrize("binary", [True, False], ids=["raw", "json"])
def test_they_go_and_come_as_they_are(client: triton.InferenceServerClient, binary: bool) -> None:
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary or datatype == "FP16")
        for name, (datatype, _) in WANTED.items()
    ]
    answer = client.infer("narrow", asked(binary), outputs=outputs)
    for name, (_, wanted) in WANTED.items():
        found = answer.as_numpy(name)
        assert found.dtype == wanted.dtype and np.array_equal(found, wanted), name


def test_half_floats_in_json(narrow: Server) -> None:
    entries = [
        {"name": name, "shape": list(array.shape), "datatype": datatype, "data": array.ravel().tolist()}
        for name, (datatype, array) in TYPES.items()
    ]
    with narrow.client() as http:
        answer = http.post("/v2/models/narrow/infer", json={"inputs": entries, "outputs": [{"name": "halves"}]})
        (found,) = answer.json()["outputs"]
        assert found["datatype"] == "FP16" and np.array_equal(np.float16(found["data"]), -HALVES[0])
        for name, wrong, said in (
            ("image", [256] * 90, "the data of input 'image' do not fit UINT8"),
            ("codes", [-129, 0, 0, 0], "the data of input 'codes' do not fit INT8"),
            ("codes", [0.5, 0, 0, 0], "the data of input 'codes' are not all of INT8"),
            ("halves", [1e6, 0, 0, 0], "the data of input 'halves' do not fit FP16"),
        ):
            changed = [{**entry, "data": wrong} if entry["name"] == name else entry for entry in entries]
            refused = http.post("/v2/models/narrow/infer", json={"inputs": changed})
            assert refused.status_code == 400 and refused.json() == {"error": said}


@pytest.mark.parametrize("binary", [True, False], ids=["raw", "json"])
def test_another_type_is_one_line(client: triton.InferenceServerClient, binary: bool) -> None:
    for name, wider in (("image", "int32"), ("codes", "float32"), ("halves", "float32")):
        with pytest.raises(triton.InferenceServerException) as caught:
            client.infer("narrow", asked(binary, **{name: TYPES[name][1].astype(wider)}))
        got = {"int32": "INT32", "float32": "FP32"}[wider]
        assert caught.value.message() == f"input '{name}' must be {TYPES[name][0]}, got '{got}'"

"""Program files: all or nothing when written, no pickle when read."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.program_file import export_onnx, load_program, read_program, save_program
from reconvene.passes.compaction import compact

from ..support.models import channel_masks, randomise, view_of

IMAGE = (torch.randn(2, 3, 8, 8),)


class Small(nn.Module):
    """Convolutions with normalisation, a gate and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.dropout = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5)
        self.gate, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x)).relu()
        return self.last(self.dropout(y * self.gate(y.mean((2, 3), keepdim=True)).sigmoid()))


@pytest.fixture
def small() -> Any:
    """A compacted module."""
    model = randomise(Small())
    return compact(capture(model, IMAGE), IMAGE, channel_masks(view_of(model, IMAGE), "M1")).module


@pytest.fixture
def saved(tmp_path: Path, small: Any) -> Path:
    """Its file."""
    save_program(small, IMAGE, tmp_path / "small.pt2")
    return tmp_path / "small.pt2"


def refusal(path: Path) -> str:
    """The one line that loading fails with."""
    with pytest.raises(InputError) as caught:
        load_program(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def repacked(source: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy of an archive with every record passed through `change`; None leaves it out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


class Payload:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_what_is_saved_is_what_is_loaded(saved: Path, small: Any) -> None:
    module, inputs = load_program(saved)
    assert inputs is not None
    assert torch.equal(inputs[0], IMAGE[0])
    assert {name: p.shape for name, p in module.named_parameters()} == {
        name: p.shape for name, p in small.named_parameters()
    }
    assert torch.equal(module(*IMAGE), small(*IMAGE))


def test_a_loaded_module_trains(saved: Path) -> None:
    module, _ = load_program(saved)
    module.train()
    assert not torch.equal(module(*IMAGE), module(*IMAGE))
    module(*IMAGE).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_module_in_training_is_saved_in_inference_mode_and_stays_in_training(tmp_path: Path, small: Any) -> None:
    expected = small.eval()(*IMAGE)
    small.train()
    save_program(small, IMAGE, tmp_path / "small.pt2")
    assert small.training
    assert torch.equal(load_program(tmp_path / "small.pt2")[0](*IMAGE), expected)


def test_free_sizes_stay_free_in_the_file(tmp_path: Path) -> None:
    free = torch.export.Dim.DYNAMIC
    model = randomise(Small())
    module = capture(model, IMAGE, ({0: free, 2: free, 3: free},))
    result = compact(module, IMAGE, channel_masks(view_of(model, IMAGE), "M1")).module
    save_program(result, IMAGE, tmp_path / "free.pt2")
    loaded, _ = load_program(tmp_path / "free.pt2")
    other = torch.randn(5, 3, 17, 11)
    torch.testing.assert_close(loaded(other), result(other))


def test_onnx_computes_the_same(tmp_path: Path, small: Any) -> None:
    export_onnx(small, IMAGE, tmp_path / "small.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: IMAGE[0].numpy()})
    expected = small(*IMAGE).detach().numpy()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert sorted(os.listdir(tmp_path)) == ["small.onnx"]


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.pt2")


def test_a_folder_is_no_archive(tmp_path: Path) -> None:
    assert "not a .pt2 archive" in refusal(tmp_path)


def test_text_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "text.pt2").write_text("not a model")
    assert "not a .pt2 archive" in refusal(tmp_path / "text.pt2")


def test_another_zip_is_no_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.pt2", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "not a .pt2 archive" in refusal(tmp_path / "other.pt2")


def test_weights_saved_by_torch_save_are_no_archive(tmp_path: Path) -> None:
    torch.save(Small().state_dict(), tmp_path / "weights.pt2")
    assert "not a .pt2 archive" in refusal(tmp_path / "weights.pt2")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    refusal(saved)


@pytest.mark.parametrize("place", [0.2, 0.4, 0.6, 0.8])
def test_a_file_with_damaged_bytes_is_refused_or_says_what_it_holds(saved: Path, place: float) -> None:
    content = bytearray(saved.read_bytes())
    start = int(len(content) * place)
    content[start : start + 64] = bytes(64)
    saved.write_bytes(content)
    try:
        load_program(saved)
    except InputError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("record", ["models/model.json", "_config.json", "data/weights/"])
def test_an_archive_without_a_record_is_refused(saved: Path, tmp_path: Path, record: str) -> None:
    broken = repacked(saved, tmp_path / "broken.pt2", lambda name, content: None if record in name else content)
    refusal(broken)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": 3}', '{"config": {"a": 3}}'])
def test_an_archive_whose_index_is_nonsense_is_refused(saved: Path, tmp_path: Path, text: str) -> None:
    broken = repacked(
        saved,
        tmp_path / "broken.pt2",
        lambda name, content: text.encode() if name.endswith("weights_config.json") else content,
    )
    refusal(broken)


def test_example_inputs_that_would_run_code_are_refused_and_do_not_run(saved: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    buffer = io.BytesIO()
    torch.save(((Payload(trap),), {}), buffer)
    evil = repacked(
        saved, tmp_path / "evil.pt2", lambda name, content: buffer.getvalue() if "sample_inputs" in name else content
    )
    assert "unpickling" in refusal(evil)
    assert not trap.exists()
    assert zipfile.ZipFile(saved).namelist() == zipfile.ZipFile(evil).namelist()


def test_the_same_trap_would_have_sprung(tmp_path: Path) -> None:
    """Shows that the file of the test above is a trap, and not just bytes that nobody minds."""
    trap = tmp_path / "trap"
    pickle.loads(pickle.dumps(Payload(trap)))
    assert trap.exists()


@pytest.mark.parametrize("kind", ["weights", "constants"])
def test_pickled_weights_are_refused_and_do_not_run(saved: Path, tmp_path: Path, kind: str) -> None:
    trap = tmp_path / "trap"
    evil_pickle = pickle.dumps(Payload(trap))

    def change(name: str, content: bytes) -> bytes:
        if name.endswith(f"{kind}_config.json"):
            description = json.loads(content)
            entries = description["config"]
            if not entries:
                return content
            for entry in entries.values():
                entry["use_pickle"] = True
            return json.dumps(description).encode()
        return evil_pickle if f"data/{kind}/" in name and not name.endswith(".json") else content

    evil = repacked(saved, tmp_path / "evil.pt2", change)
    if kind == "weights":
        assert "pickle" in refusal(evil)
    else:
        load_program(evil)
    assert not trap.exists()


def test_pickled_records_beside_the_others_are_refused(saved: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    root = zipfile.ZipFile(saved).namelist()[0].split("/")[0]
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr(f"{root}/data/weights/extra.pt", pickle.dumps(Payload(trap)))
    assert "pickle" in refusal(saved)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("record", "content"),
    [
        ("data/aotinductor/model/library.so", b"native code"),
        ("data/constants/opaque_obj_0", b"pickle"),
        ("data/weights/model.pt", b"pickle"),
        ("serialized_state_dict.pt", b"pickle"),
    ],
)
def test_records_that_could_run_code_are_refused(saved: Path, record: str, content: bytes) -> None:
    root = zipfile.ZipFile(saved).namelist()[0].split("/")[0]
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr(f"{root}/{record}", content)
    assert "may run code" in refusal(saved)


def test_pickled_objects_among_the_constants_are_refused_and_do_not_run(saved: Path, tmp_path: Path) -> None:
    """torch.export.load unpickles constants that are called opaque_obj, without asking."""
    trap = tmp_path / "trap"
    with zipfile.ZipFile(saved) as archive:
        root = archive.namelist()[0].split("/")[0]
        entries = json.loads(archive.read(f"{root}/data/weights/model_weights_config.json"))["config"]
    entry = {**next(iter(entries.values())), "path_name": "opaque_obj_0", "use_pickle": False}

    def change(name: str, content: bytes) -> bytes:
        return json.dumps({"config": {"object": entry}}).encode() if name.endswith("constants_config.json") else content

    evil = repacked(saved, tmp_path / "evil.pt2", change)
    assert "pickle" in refusal(evil)
    content = pickle.dumps(Payload(trap))
    with zipfile.ZipFile(evil, "a") as archive:
        archive.writestr(f"{root}/data/constants/opaque_obj_0", content + bytes(-len(content) % 4))
    refusal(evil)
    assert not trap.exists()
    with contextlib.suppress(Exception):
        torch.export.load(evil)
    assert trap.exists(), "torch itself does not fall into this trap: the test shows nothing"


@pytest.mark.parametrize("change", [str, str.upper], ids=["twice", "in capitals"])
def test_a_second_record_of_one_name_is_refused(saved: Path, change: Callable[[str], str]) -> None:
    """Python reads the last of two records and torch the first: what was looked at would not be what is loaded."""
    name = next(name for name in zipfile.ZipFile(saved).namelist() if name.endswith("weights_config.json"))
    root, _, record = name.partition("/")
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr(f"{root}/{change(record)}", b"{}")
    assert "several records of one name" in refusal(saved)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, small: Any) -> None:
    target = tmp_path / "model.pt2"
    target.write_text("old")
    with pytest.raises(InputError):
        save_program(small, (torch.randn(2, 5, 8, 8),), target)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["model.pt2"]


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path, small: Any) -> None:
    for write in (save_program, export_onnx):
        with pytest.raises(InputError, match="cannot write") as caught:
            write(small, IMAGE, tmp_path / "missing" / "model.pt2")
        assert "\n" not in str(caught.value)


def test_a_certificate_travels_with_its_program(tmp_path: Path, small: Any) -> None:
    path = tmp_path / "small.pt2"
    save_program(small, IMAGE, path)
    assert read_program(path).certificate is None
    given = {"dtype": "float64", "max_relative": 1e-16, "inputs": [["2x3x8x8"]]}
    save_program(small, IMAGE, path, certificate=given)
    assert read_program(path).certificate == given
    loaded, inputs = load_program(path)
    assert inputs is not None
    assert torch.equal(loaded(*inputs), small(*IMAGE))
    # torch sees a text among others, and a copy without it has none.
    extra = {"reconvene_certificate.json": ""}
    torch.export.load(str(path), extra_files=extra)
    assert json.loads(extra["reconvene_certificate.json"])["certificate"] == given
    save_program(loaded, IMAGE, path)
    assert read_program(path).certificate is None


@pytest.mark.parametrize(
    ("record", "change", "message"),
    [
        ("data/weights/weight_0", lambda data: bytes([data[0] ^ 1]) + data[1:], "is of another program"),
        ("extra/reconvene_certificate.json", lambda data: data[:-9], "cannot read the certificate"),
        ("extra/reconvene_certificate.json", lambda data: b'{"program": "x", "certificate": {}}', "another program"),
        ("extra/reconvene_certificate.json", lambda data: b"[]", "cannot read the certificate"),
    ],
)
def test_a_certificate_of_another_program(
    tmp_path: Path, small: Any, record: str, change: Callable[[bytes], bytes], message: str
) -> None:
    path, spoilt = tmp_path / "small.pt2", tmp_path / "spoilt.pt2"
    save_program(small, IMAGE, path, certificate={"max_relative": 0.0})
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(spoilt, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, change(data) if name.endswith(record) else data)
    with pytest.raises(InputError, match=message) as caught:
        assert read_program(spoilt).certificate is None
    assert str(spoilt) in str(caught.value) and "\n" not in str(caught.value)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(64, dtype=torch.bool))

    def forward(self, x: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        return torch.where(self.mask & given, x, 0)


@pytest.mark.parametrize("name", ["mask", "example input 1"])
def test_booleans_of_other_bytes_than_two_are_refused(name: str, tmp_path: Path) -> None:
    """One operator takes a 2 for true, and another makes 3 of its opposite."""
    inputs = (torch.ones(64), torch.ones(64, dtype=torch.bool))
    torch.export.save(torch.export.export(Masked(), inputs), tmp_path / "a.pt2")
    with zipfile.ZipFile(tmp_path / "a.pt2") as stored, zipfile.ZipFile(tmp_path / "b.pt2", "w") as changed:
        for entry in stored.namelist():
            content = stored.read(entry)
            if "weights/weight" in entry and name == "mask":
                assert content.count(b"\1" * 64) == 1
                content = content.replace(b"\1" * 64, b"\2" * 64)
            if "sample_inputs/" in entry and name != "mask":
                content = twos(content)
            changed.writestr(entry, content)
    read_program(tmp_path / "a.pt2")
    with pytest.raises(InputError, match=f"'{name}' holds booleans that are neither true nor false"):
        read_program(tmp_path / "b.pt2")


def twos(content: bytes) -> bytes:
    """A stored archive in which 64 ones are twos."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as stored, zipfile.ZipFile(made, "w") as changed:
        for entry in stored.namelist():
            part = stored.read(entry)
            changed.writestr(entry, part.replace(b"\1" * 64, b"\2" * 64) if len(part) == 64 else part)
    return made.getvalue()

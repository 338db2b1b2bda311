"""A stored program cannot make its reader run, import or open anything, nor take more memory than the file is long."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from reconvene.driver.cli.command_line import main
from reconvene.frontend.archive import read_records
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.program_file import load_program

GRAPH, INPUTS, WEIGHTS = "models/model.json", "data/sample_inputs/model.pt", "data/weights/model_weights_config.json"


class Choosing(nn.Module):
    """Sizes that vary, a branch, a block without gradients, an attribute, a named argument."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            scale = x.abs().sum()
        y = torch.cond(scale > 1, lambda x: x + 1, lambda x: x - 1, (self.layer(x),))
        return {"out": torch.einsum("ij,kj->ik", y, y).reshape(x.shape[0] * x.shape[0]), "scale": scale}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "model.pt2"
    program = torch.export.export(Choosing().eval(), (torch.randn(3, 4),), dynamic_shapes=({0: Dim("batch")},))
    torch.export.save(program, path)
    return path


def changed(source: Path, target: Path, record: str, change: Callable[[bytes], bytes]) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.partition("/")[2] == record else content)
    return target


def edited(edit: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        program = json.loads(content)
        edit(program)
        return json.dumps(program).encode()

    return change


def every(kind: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets all entries of one name."""

    def edit(part: Any) -> None:
        for entry in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            edit(entry)
        if isinstance(part, dict) and kind in part:
            part[kind] = value

    return edit


def node(**change: Any) -> Callable[[dict[str, Any]], None]:
    def edit(program: dict[str, Any]) -> None:
        program["graph_module"]["graph"]["nodes"][0].update(change)

    return edit


def renamed_input(name: str) -> Callable[[dict[str, Any]], None]:
    """Calls the graph's input `name` wherever it stands; names become source code."""

    def edit(program: dict[str, Any]) -> None:
        text = json.dumps(program).replace('"name": "x"', f'"name": {json.dumps(name)}')
        program.clear()
        program.update(json.loads(text.replace('"x": {"dtype"', f'{json.dumps(name)}: {{"dtype"')))

    return edit


def structure(kind: str, context: Any) -> str:
    leaf = {"type": None, "context": None, "children_spec": []}
    return json.dumps([1, {"type": kind, "context": context, "children_spec": [leaf]}])


def specs(text: str) -> Callable[[dict[str, Any]], None]:
    def edit(program: dict[str, Any]) -> None:
        for entry in program["graph_module"]["module_call_graph"]:
            if entry["signature"]:
                entry["signature"]["in_spec"] = text

    return edit


RUN = "__import__('pathlib').Path('MARKER').touch()"

FACTORY = {"default_factory_module": "evil", "default_factory_name": "x", "dict_context": ["a"]}

EVIL: dict[str, Callable[[dict[str, Any]], None]] = {
    "a size": every("expr_str", f"{RUN} or 2"),
    "a size by attribute": every("expr_str", "s0.__class__"),
    "a size of many digits": every("expr_str", "9**9**9**9"),
    "a range": lambda program: program.update(range_constraints={f"{RUN}": {"min_val": 0, "max_val": 9}}),
    "an operator of another library": node(target="torch.ops.evil.run.default"),
    "a check by name": lambda program: program.update(verifiers=[RUN]),
    "a function of torch": node(target="torch.load"),
    "a way out of torch": node(target="torch.os.system"),
    "a function of operator": node(target="_operator.methodcaller"),
    "an attribute of math": node(target="math.__loader__.load_module"),
    "an extension": node(target="#evil:run"),
    "a file that is read": node(target="torch.ops.aten.from_file.default"),
    "a file that is written": node(target="torch.ops.aten.save.default"),
    "a picture's file that is read": node(target="torch.ops.torchvision.read_file.default"),
    "a picture's file that is written": node(target="torch.ops.torchvision.write_file.default"),
    "a call of another backend": node(target="torch.ops.higher_order.executorch_call_delegate"),
    "a name that is code": renamed_input(f"x={RUN}"),
    "a node's name": node(name=f"x;{RUN}"),
    "a parameter's name": every("parameter_name", f'layer.weight"),{RUN},getattr(self,"x'),
    "an argument's name": every("forward_arg_names", [f"x={RUN}"]),
    "a factory to import": specs(structure("collections.defaultdict", FACTORY)),
    "an enumeration to import": specs(structure("builtins.dict", '[{"__enum__": true, "fqn": "evil:A", "name": "a"}]')),
    "a class of another package": specs(structure("evil.Output", "[]")),
    "a dict's key that is code": specs(structure("builtins.dict", json.dumps([f"x={RUN}"]))),
    "a structure that is no JSON": specs("(1, 2)"),
    "a custom object": node(inputs=[{"name": "x", "arg": {"as_custom_obj": {"name": "x", "class_fqn": "evil"}}}]),
    "a text where a number is": lambda program: program["schema_version"].update(major=RUN),
    "a list where a text is": node(target=["torch.ops.aten.relu.default"]),
    "nothing": dict.clear,
}


@pytest.mark.parametrize("edit", EVIL.values(), ids=EVIL.keys())
def test_what_a_graph_asks_for_is_refused_and_named(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], edit: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.py").write_text("import pathlib; pathlib.Path('MARKER').touch(); x = dict\nclass A: pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    changed(stored, Path("evil.pt2"), GRAPH, edited(edit))
    assert main(["explain", "evil.pt2"]) == 2
    error = capsys.readouterr().err
    assert "'evil.pt2'" in error and GRAPH in error and "Traceback" not in error and error.count("\n") == 1
    assert not Path("MARKER").exists()


def test_guards_and_what_only_developers_need_are_not_read(stored: Path, tmp_path: Path) -> None:
    def edit(program: dict[str, Any]) -> None:
        program["guards_code"] = [RUN]
        program["graph_module"]["metadata"] = {"custom": "not even JSON"}
        for entry in program["graph_module"]["graph"]["nodes"]:
            entry["metadata"] |= {"source_fn_stack": f"x,torch.{RUN}", "from_node": "[", "custom": "{"}

    module, inputs = load_program(changed(stored, tmp_path / "odd.pt2", GRAPH, edited(edit)))
    assert inputs is not None
    torch.testing.assert_close(module(*inputs)["out"], load_program(stored)[0](*inputs)["out"])


def test_the_unchanged_program_is_read_and_stays_dynamic(stored: Path) -> None:
    module, inputs = load_program(stored)
    assert inputs is not None and inputs[0].shape == (3, 4)
    x = torch.randn(5, 4)
    y = x @ module.get_parameter("layer.weight").T + module.get_parameter("layer.bias")
    y = y + 1 if x.abs().sum() > 1 else y - 1
    torch.testing.assert_close(module(x)["out"], (y @ y.T).reshape(25))


def test_each_thing_is_said_once(stored: Path, tmp_path: Path) -> None:
    """Readers differ in which of two they take."""
    path = changed(stored, tmp_path / "twice.pt2", GRAPH, lambda text: b'{"torch_version": "1", ' + text[1:])
    with pytest.raises(InputError, match=r"models/model\.json' says one thing twice"):
        load_program(path)


def test_two_directories_are_one_file_to_the_reader(stored: Path, tmp_path: Path) -> None:
    """torch's reader would take the place that the end of the file names, Python's what lies before the end."""
    from ..support.hostile import split_archive

    path, marker = tmp_path / "split.pt2", tmp_path / "MARKER"
    split_archive(stored, path, marker)
    assert not zipfile.ZipFile(path).testzip()
    with pytest.raises(InputError, match="its directory is not where its end says"):
        load_program(path)
    assert not marker.exists()


def packed(source: Path, target: Path) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))


def test_packed_records_are_refused_before_they_are_unpacked(stored: Path, tmp_path: Path) -> None:
    packed(stored, tmp_path / "packed.pt2")
    with pytest.raises(InputError, match=r"packs '.*', which torch never does"):
        load_program(tmp_path / "packed.pt2")


def placed(sizes: list[int], strides: list[int], offset: int = 0, **more: Any) -> Callable[[bytes], bytes]:
    """Describes the stored 4x4 weight of float32 otherwise."""

    def edit(config: dict[str, Any]) -> None:
        meta = config["config"]["layer.weight"]["tensor_meta"]
        meta["sizes"], meta["strides"] = ([{"as_int": value} for value in values] for values in (sizes, strides))
        meta["storage_offset"] = {"as_int": offset}
        meta.update(more)

    return edited(edit)


LARGER = "says that 'layer.weight' is larger than what is stored"
REPEATED = "what its tensors repeat of what is stored claims .* more than the limit of 256 MiB"
NO_NUMBERS = "says that 'layer.weight' has sizes that are no numbers"
UNKNOWN = "says that 'layer.weight' is of a kind that is not known"
DOUBLE, NO_TYPE, SPARSE = 8, 0, 1
PLACES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a terabyte": (placed([1 << 20, 1 << 20], [0, 0]), REPEATED),
    "many rows": (placed([1 << 40, 4], [0, 0]), REPEATED),
    "more than there are": (placed([1 << 70, 4], [0, 0]), LARGER),
    "one number too many": (placed([17], [1]), LARGER),
    "a stride beyond the end": (placed([4, 4], [5, 1]), LARGER),
    "an offset beyond the end": (placed([4, 4], [4, 1], 1), LARGER),
    "an offset alone": (placed([1], [1], 1 << 40), LARGER),
    "a wider type": (placed([4, 4], [4, 1], dtype=DOUBLE), LARGER),
    "no type": (placed([4, 4], [4, 1], dtype=NO_TYPE), UNKNOWN),
    "another layout": (placed([4, 4], [4, 1], layout=SPARSE), UNKNOWN),
    "a stride too few": (placed([4, 4], [4]), UNKNOWN),
    "a stride backwards": (placed([4, 4], [-4, 1], 12), NO_NUMBERS),
    "an offset backwards": (placed([4, 4], [4, 1], -1), NO_NUMBERS),
    "a negative size": (placed([-4, 4], [4, 1]), NO_NUMBERS),
    "other sizes than its value": (placed([2, 8], [8, 1]), "it says that .* is float32 4x4, and it is float32 2x8"),
}


@pytest.mark.parametrize(("change", "message"), PLACES.values(), ids=PLACES.keys())
def test_tensors_that_do_not_lie_in_what_is_stored_are_refused(
    stored: Path, tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_program(changed(stored, tmp_path / "large.pt2", WEIGHTS, change))


def test_a_tensor_that_repeats_numbers_is_read(tmp_path: Path) -> None:
    class Repeating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("ones", torch.ones(1).expand(64, 64))
            self.register_buffer("none", torch.zeros(0, 7))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.get_buffer("ones") + self.get_buffer("none").sum()

    x = torch.ones(2, 64)
    torch.export.save(torch.export.export(Repeating(), (x,)), tmp_path / "repeating.pt2")
    torch.testing.assert_close(load_program(tmp_path / "repeating.pt2")[0](x), torch.full((2, 64), 64.0))


def inner(compression: int, pickled: bytes | None = None) -> Callable[[bytes], bytes]:
    """The archive within the archive that holds the example inputs, written anew."""

    def change(content: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
            for name in old.namelist():
                replaced = pickled is not None and name.endswith("data.pkl")
                new.writestr(name, pickled if replaced and pickled is not None else old.read(name))
            new.writestr("archive/data/9", bytes(1 << 24))
        return buffer.getvalue()

    return change


def test_example_inputs_are_tensors_and_no_longer_than_their_record(stored: Path, tmp_path: Path) -> None:
    bomb = changed(stored, tmp_path / "bomb.pt2", INPUTS, inner(zipfile.ZIP_DEFLATED))
    with pytest.raises(InputError, match="claims more bytes than it holds"):
        load_program(bomb)
    code = f"cbuiltins\neval\n(S{RUN!r}\ntR.".encode()
    pickled = changed(stored, tmp_path / "pickled.pt2", INPUTS, inner(zipfile.ZIP_STORED, code))
    with pytest.raises(InputError, match="example inputs that need unpickling"):
        load_program(pickled)


def test_example_inputs_that_hold_one_another_are_counted(stored: Path, tmp_path: Path) -> None:
    """2**40 lists in 500 bytes."""
    nested: list[Any] = [1]
    for _ in range(40):
        nested = [nested, nested]
    buffer = io.BytesIO()
    torch.save(((nested,), {}), buffer)
    laughs = changed(stored, tmp_path / "laughs.pt2", INPUTS, lambda content: buffer.getvalue())
    with pytest.raises(InputError, match="more than 100000 values as example inputs"):
        load_program(laughs)


def test_keys_of_example_inputs_that_take_for_ever_to_hash_are_refused(stored: Path, tmp_path: Path) -> None:
    key = b"\x80\x02}(K\x01q\x00" + b"0h\x00h\x00\x86q\x00" * 40 + b"K\x01u."
    bomb = changed(stored, tmp_path / "key.pt2", INPUTS, inner(zipfile.ZIP_STORED, key))
    with pytest.raises(InputError, match="example inputs that cannot be read: it holds tuples in tuples"):
        load_program(bomb)


def test_what_is_refused_is_said_in_one_line(stored: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def changed_sizes(content: bytes) -> bytes:
        return re.sub(rb'"expr_str": "[^"]*"', b'"expr_str": "true"', content)

    with pytest.raises(InputError, match="Can only compare") as refused:
        load_program(changed(stored, tmp_path / "sizes.pt2", GRAPH, changed_sizes))
    assert "\n" not in str(refused.value)
    assert capfd.readouterr().err == ""


def test_quantised_example_inputs_are_refused(stored: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(((torch.quantize_per_tensor(torch.ones(2, 4), 0.1, 0, torch.qint8),), {}), buffer)
    with pytest.raises(InputError, match="quantised"):
        load_program(changed(stored, tmp_path / "quantised.pt2", INPUTS, lambda content: buffer.getvalue()))


def test_records_that_overlap_are_refused(stored: Path, tmp_path: Path) -> None:
    """Two entries of the directory that point at one place make a small file long."""
    raw = bytearray(stored.read_bytes())
    end = raw.rfind(b"PK\5\6")
    size, start = struct.unpack("<II", raw[end + 12 : end + 20])
    directory, places = bytes(raw[start : start + size]), []
    at = 0
    while at < size:
        name, extra, comment = struct.unpack("<HHH", directory[at + 28 : at + 34])
        places.append((at, at + 46 + name + extra + comment, directory[at + 46 : at + 46 + name]))
        at = places[-1][1]
    first, last, name = max(places, key=lambda place: struct.unpack("<I", directory[place[0] + 24 : place[0] + 28])[0])
    copies = b"".join(
        directory[first : first + 46] + name[:-2] + f"{number:02d}".encode() + directory[first + 46 + len(name) : last]
        for number in range(40)
    )
    counts = struct.pack("<HHII", len(places) + 40, len(places) + 40, size + len(copies), start)
    path = tmp_path / "overlapping.pt2"
    path.write_bytes(bytes(raw[:start]) + directory + copies + bytes(raw[end : end + 8]) + counts + b"\0\0")
    with pytest.raises(InputError):
        read_records(path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
def test_only_files_are_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "odd.pt2")
    with pytest.raises(InputError, match=r"is not a .pt2 archive"):
        read_records(tmp_path / "odd.pt2")

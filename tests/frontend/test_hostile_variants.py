"""Twenty variants of each way in which a stored program may ask its reader to run something, and none that is run."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from reconvene.frontend.archive import read_records, vetted
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.program_file import load_program
from reconvene.frontend.program_schema import Unvetted, vetted_program

Program = dict[str, Any]
Records = dict[str, bytes]

RUN = "__import__('pathlib').Path('MARKER').touch()"


class Flat(nn.Module):
    """Sizes that are computed, and a block without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = x.abs().sum()
        return (self.layer(x) * scale).reshape(x.shape[0] * 4)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "model.pt2"
    program = torch.export.export(Flat().eval(), (torch.randn(3, 4),), dynamic_shapes=({0: Dim("n")},))
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def records(stored: Path) -> Records:
    return read_records(stored)


def edited(records: Records, edit: Callable[[Program], None]) -> bytes:
    program = json.loads(records["models/model.json"])
    edit(program)
    return json.dumps(program).encode()


def everywhere(key: str, value: Any) -> Callable[[Program], None]:
    """Sets all entries called `key`."""

    def edit(part: Any) -> None:
        for entry in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            edit(entry)
        if isinstance(part, dict) and key in part:
            part[key] = value

    return edit


EXPRESSIONS = [
    RUN, f"{RUN} or 2", f"s0 + ({RUN} or 0)", f"(lambda: {RUN})()", f"[{RUN} for _ in (1,)]", f"Max(s0, {RUN})",
    f"Symbol({RUN})",
    f"Integer({RUN})", f"Symbol('s0', positive={RUN})", f"Symbol('s0', cls={RUN})", f"Float('1', precision={RUN})",
    f"Pow(s0, {RUN})", f"s0 if {RUN} else 1", f"f'{{{RUN}}}'", f"(s0 := {RUN})", f"{{{RUN}: 1}}", f"s0[{RUN}]",
    "s0.__class__.__mro__", "Symbol('s0').func", "Symbol('__import__(0)')", "getattr(s0, 'func')", "sympify('1')",
    "S('1')",
    "Function('f')(s0)", "Lambda(s0, s0)", "eval('1')", "open('MARKER', 'w')", "lambdify(s0, 'x')",
    "parse_expr('1')", "s0; s1",
    "import os", "factorial(10**9)", "9**9**9**9", "Pow(9, Pow(9, Pow(9, 9)))", "LShift(1, 10**9)", "1 << 10**9",
    "10**1000",
    "Max(*[1])", "Max(**{})", "'s0'", "b's0'", "...", "~s0", "s0 @ s1", "not s0", "s0 and s1", "s0 < s1 < s2",
    "await_", "os",
    "((((" * 200 + "s0" + "))))" * 200, "s0+" * 5000 + "1", "\u0455" + "0", "s0\0", "", " ", "#", "2j", "None",
]  # fmt: skip


def test_expressions_of_sizes(records: Records) -> None:
    """As sizes, and as what a range is of."""
    assert len(EXPRESSIONS) >= 40
    for expression in EXPRESSIONS:
        with pytest.raises(Unvetted, match=r"SymExpr\.expr_str"):
            vetted_program(edited(records, everywhere("expr_str", expression)))
        with pytest.raises(Unvetted, match="range_constraints"):
            vetted_program(edited(records, everywhere("range_constraints", {expression: {"min_val": 0, "max_val": 9}})))


RANGES: list[Any] = [
    {"s0": RUN}, {"s0": [0, 9]}, {"s0": {"min_val": RUN, "max_val": 9}}, {"s0": {"min_val": 0, "max_val": RUN}},
    {"s0": {"min_val": 0.5, "max_val": 9}}, {"s0": {"min_val": [], "max_val": 9}}, {"s0": {"min_val": {"a": 1},
    "max_val": 9}},
    {"s0": {"min_val": True, "max_val": 9}}, {"s0": {"min_val": "0", "max_val": "9"}}, {"s0": {}}, {"s0": None},
    {"s0": 3},
    {"s0": {"min_val": 0}}, {"s0": {"max_val": "inf"}}, [], [["s0", 1]], RUN, 7, None, True, {"s0": {"min_val": {},
    "max_val": 1}},
]  # fmt: skip


def test_ranges_of_sizes(records: Records) -> None:
    assert len(RANGES) >= 20
    for ranges in RANGES:
        with pytest.raises(Unvetted):
            vetted_program(edited(records, everywhere("range_constraints", ranges)))


GUARDS: list[Any] = [[text] for text in EXPRESSIONS[:17]] + [RUN, {"code": RUN}, [[RUN]], 7, None, [None, 1, {}]]


def test_guards_are_left_out_whatever_they_are(records: Records) -> None:
    assert len(GUARDS) >= 20
    for guards in GUARDS:
        found = json.loads(vetted_program(edited(records, everywhere("guards_code", guards))))
        assert found["guards_code"] == []


METADATA: list[tuple[str, Any]] = [
    *((key, text) for key in ("source_fn_stack", "from_node", "custom", "module", "partitioner_tag", "example_value")
       for text in (
        RUN, "[", f"x,{RUN}", json.dumps({"reconvene_modes": {"owner": RUN, "arguments": {}, "cumulative": False}}),
    )),
    ("source_fn_stack", f"linear,torch.{RUN}"), ("from_node", json.dumps([{"name": RUN, "target": RUN,
    "pass_name": RUN}])),
    ("custom", json.dumps({"reconvene_modes": {"owner": "a", "arguments": {RUN: [True, False]}, "cumulative": False}})),
    ("custom", json.dumps({"reconvene_differences": [f"a\n{RUN}"]})), ("custom", "[" * 100_000), (RUN, RUN),
    ("__class__", "x"),
]  # fmt: skip


def test_metadata_of_calls_is_left_out_but_for_lines_and_modules(records: Records) -> None:
    assert len(METADATA) >= 20
    for key, value in METADATA:
        text = edited(records, lambda program: _metadata(program, key, value))  # noqa: B023
        for node in json.loads(vetted_program(text))["graph_module"]["graph"]["nodes"]:
            assert node["metadata"].keys() <= {"stack_trace", "nn_module_stack", "torch_fn"}


def _metadata(program: Program, key: str, value: Any) -> None:
    for node in program["graph_module"]["graph"]["nodes"]:
        node["metadata"][key] = value
    program["graph_module"]["metadata"] = {key: value}


LINES: list[Any] = [RUN + "\0", "\x1b[2J", "a\x07", "\x08" * 9, "\x7f", 7, [RUN], {"a": RUN}, True, 0.5, [1], {"x": 1}]


@pytest.mark.parametrize("key", ["stack_trace", "nn_module_stack", "torch_fn"])
def test_lines_and_modules_are_plain_text(records: Records, key: str) -> None:
    for line in LINES:
        with pytest.raises(Unvetted):
            vetted_program(edited(records, lambda program: _metadata(program, key, line)))  # noqa: B023


OPERATORS = [
    "torch.ops.evil.run.default", "torch.ops.aten.relu.default;x", "torch.ops.aten.__class__.x.y",
    "torch.ops.load_library",
    "torch.ops.aten.save.default", "torch.ops.aten.from_file.default", "torch.ops.aten._print.default",
    "torch.ops.inductor.run.x",
    "torch.ops.rpc.x.default", "torch.ops.prim.x.default", "torch.ops.profiler.x.y", "torch.ops.onnx.x.default",
    "torch.load",
    "torch.os.system", "torch.hub.load", "torch.ops.higher_order.executorch_call_delegate", "torch.ops.higher_order.evil",
    "torch.ops.higher_order.triton_kernel_wrapper_mutation", "torch.ops.higher_order.call_torchbind",
    "_operator.methodcaller",
    "operator.attrgetter", "builtins.eval", "math.__loader__.load_module", "math.pow.__self__", "os.system", "#evil:run",
    "torch._sym_evil", "torch.sym_not.__globals__", "torch.ops.aten.relu", "torch.ops.aten", "aten.relu.default", "",
    ".", RUN,
    "torch.ops.aten.relu.default\n", " torch.ops.aten.relu.default", "torch.ops.AT\u0415N.relu.default",
    "torch.ops.aten.warn.default",
]  # fmt: skip


def test_operators_that_are_not_known(records: Records) -> None:
    assert len(OPERATORS) >= 20
    wrong = [target for target in OPERATORS if _passes(records, target)]
    assert wrong == ["torch.ops.aten.relu"]  # torch finds no such overload, and nothing is run.


def _passes(records: Records, target: str) -> bool:
    def edit(program: Program) -> None:
        program["graph_module"]["graph"]["nodes"][0]["target"] = target

    try:
        vetted_program(edited(records, edit))
    except Unvetted:
        return False
    return True


class Touching:
    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, (RUN,))


def pickled() -> bytes:
    buffer = io.BytesIO()
    torch.save(Touching(), buffer)
    return buffer.getvalue()


def zipped(records: Records, compression: int = zipfile.ZIP_STORED, root: str = "model/") -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as archive:
        warnings.simplefilter("ignore")
        for name, content in records.items():
            archive.writestr(root + name, content)
    return buffer.getvalue()


def packed_within(content: bytes) -> bytes:
    """An archive with its records packed, and one more."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        inner = {name: old.read(name) for name in old.namelist()}
    return zipped({**inner, "archive/data/9": bytes(1 << 22)}, zipfile.ZIP_DEFLATED, "")


def flagged(content: bytes, place: int, value: int) -> bytes:
    """A field of the last entry of the directory."""
    made = bytearray(content)
    struct.pack_into("<H", made, made.rindex(b"PK\1\2") + place, value)
    return bytes(made)


INPUTS, WEIGHT, CONFIG = (
    "data/sample_inputs/model.pt",
    "data/weights/weight_0",
    "data/weights/model_weights_config.json",
)
LEGACY = ["data/weights/model.pt", "data/constants/model.pt", "data/constants/custom_obj_0",
"data/constants/opaque_obj_0",
          "data/aotinductor/model/a.so", "data/aotinductor/model/a.pt2", "data/executorch/a.pte", "code/a.py",
          "a.pkl", "data.pkl",
          "models/../a.json", "../models/a.json", "models/a.py", "models/a/b.json",
          "data/weights/a/weight_0"]  # fmt: skip

ARCHIVES: dict[str, Callable[[Records], bytes]] = {
    **{f"with '{name}'": lambda records, name=name: zipped({**records, name: pickled()}) for name in LEGACY},
    # type: ignore[misc]
    "packed": lambda records: zipped(records, zipfile.ZIP_DEFLATED),
    "packed by another method": lambda records: zipped(records, zipfile.ZIP_LZMA),
    "names that differ in case": lambda records: zipped({**records, WEIGHT.upper(): records[WEIGHT]}),
    "two roots": lambda records: zipped({**records, "../other/models/model.json": b"{}"}, root=""),
    "no root": lambda records: zipped(records, root=""),
    "a weight that is a pickle": lambda records: zipped({**records, CONFIG: _with_pickles(records)}),
    "inputs that are a pickle": lambda records: zipped({**records, INPUTS: pickled()}),
    "inputs that are an archive": lambda records: zipped({**records, INPUTS: zipped(records)}),
    "inputs that are packed": lambda records: zipped({**records, INPUTS: packed_within(records[INPUTS])}),
    "inputs that are a plain pickle": lambda records: zipped({**records, INPUTS: b"cbuiltins\neval\n(S'1'\ntR."}),
    "inputs that are no archive": lambda records: zipped({**records, INPUTS: b"PK" + bytes(99)}),
    "encrypted": lambda records: flagged(zipped(records), 8, 1),
    "shorter than it says": lambda records: zipped(records)[:-40],
    "the program is an archive": lambda records: zipped({**records, "models/model.json": zipped(records)}),
    "the weights' list is an archive": lambda records: zipped({**records, CONFIG: zipped(records)}),
    "within another archive": lambda records: zipped({"models": zipped(records)}),
}


def _with_pickles(records: Records) -> bytes:
    config = json.loads(records[CONFIG])
    for entry in config["config"].values():
        entry["use_pickle"] = True
    return json.dumps(config).encode()


def test_archives_that_are_not_as_torch_writes_them(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(ARCHIVES) >= 20
    monkeypatch.chdir(tmp_path)
    read = []
    for label, make in ARCHIVES.items():
        (tmp_path / "odd.pt2").write_bytes(make(records))
        try:
            load_program(tmp_path / "odd.pt2")
            read.append(label)
        except InputError as error:
            assert "\n" not in str(error) and "odd.pt2" in str(error)
    assert read == []
    assert not (tmp_path / "MARKER").exists()


@pytest.mark.parametrize("before", [b"", b"#!/bin/sh\n", b"PK\5\6" + bytes(18)], ids=["nothing", "a script", "an end"])
@pytest.mark.parametrize("after", [b"", b"PK\5\6" + bytes(18), bytes(100)], ids=["nothing", "an end", "zeros"])
def test_what_lies_around_an_archive_is_not_handed_on(
    stored: Path, tmp_path: Path, before: bytes, after: bytes
) -> None:
    """torch gets an archive that was written here, or nothing."""
    path = tmp_path / "around.pt2"
    path.write_bytes(before + stored.read_bytes() + after)
    try:
        found = read_records(path)
    except InputError:
        return
    assert found == read_records(stored)
    assert vetted(path, found).getvalue() == vetted(path, read_records(stored)).getvalue()

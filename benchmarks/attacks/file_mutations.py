"""Ways to change a file so that a reader of it may stumble: by its bytes, and by what the bytes mean."""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

__all__ = ["Mutation", "binary", "in_json", "in_npy", "in_safetensors", "in_text", "in_zip", "several"]

Mutation = Callable[[random.Random, bytes], bytes]

_NUMBERS = [0, 1, -1, 2, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**53 + 1, 2**63 - 1, 2**64, -(2**63), 10**30]
_WIDTHS = ("<B", "<H", "<I", "<Q", ">I", ">H")


def hostile_values(rng: random.Random, code: str) -> Any:
    """What JSON may hold at any place."""
    deep: Any = []
    for _ in range(rng.choice([3, 60, 400])):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    choices: list[Any] = [
        rng.choice(_NUMBERS), rng.choice(_NUMBERS), rng.choice(_NUMBERS), 1e308, -0.5, None, True, False, "", [], {}, deep,
        code, f"{code} or 2", f"Symbol('s0'){code}", "9**9**9**9", "../../etc/passwd", "/dev/zero", "a\0b", "\ud800",
        "x" * 5000, "builtins.eval", "torch.ops.aten.relu.default", "torch.load", [1] * 500, {"__class__": code}, "NaN",
        float("nan"), float("inf"), "-1", "1e999", "s0", "float32", "object", "<f4", [[[]]], {"": ""},
    ]  # fmt: skip
    return rng.choice(choices)


def binary(rng: random.Random, content: bytes) -> bytes:
    """Bytes turned, cut, repeated, put in, or overwritten with a number that sizes are confused by."""
    made, size = bytearray(content), len(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(made) + 1)
        match rng.randrange(6):
            case 0 if made:
                made[min(at, len(made) - 1)] ^= 1 << rng.randrange(8)
            case 1:
                del made[at:]
            case 2:
                del made[at : at + rng.choice([1, 4, 100, size // 3])]
            case 3:
                made[at:at] = made[rng.randrange(len(made) + 1) :][: rng.choice([1, 16, 1000])]
            case 4:
                made[at:at] = rng.randbytes(rng.choice([1, 8, 300]))
            case _:
                form = rng.choice(_WIDTHS)
                number = rng.choice(_NUMBERS) % (1 << 8 * struct.calcsize(form))
                made[at : at + struct.calcsize(form)] = struct.pack(form, number)
    return bytes(made)


def in_json(code: str) -> Mutation:
    """Values of a JSON text replaced, removed, said twice, or put elsewhere."""

    def change(rng: random.Random, content: bytes) -> bytes:
        try:
            whole = json.loads(content)
        except ValueError:
            return binary(rng, content)
        holder = [whole]
        for _ in range(rng.choice([1, 1, 2, 4])):
            _change_one(rng, holder, code)
        text = json.dumps(holder[0])
        if rng.random() < 0.1 and text.startswith("{"):
            text = '{"format": 1, ' + text[1:].replace("{", '{"a": 1, "a": 2, ', 1)
        return text.encode("utf-8", "surrogatepass")

    return change


def _change_one(rng: random.Random, holder: list[Any], code: str) -> None:
    place: Any = holder
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = rng.choice(keys)
        value = place[key]
        if not isinstance(value, dict | list) or not value or rng.random() < 0.06:
            break
        place = value
    if rng.random() < 0.15 and place is not holder:
        del place[key]
    elif rng.random() < 0.1 and isinstance(place, dict):
        place[str(hostile_values(rng, code))] = value
    elif rng.random() < 0.3 and isinstance(value, int) and not isinstance(value, bool):
        place[key] = value + rng.choice([-1, 1, 7, 10**6, 10**12])
    else:
        place[key] = hostile_values(rng, code)


def in_text(code: str) -> Mutation:
    """Lines of a text repeated, removed, swapped, or their values replaced."""

    def change(rng: random.Random, content: bytes) -> bytes:
        lines = content.decode("utf-8", "replace").split("\n")
        for _ in range(rng.choice([1, 1, 2, 3])):
            at = rng.randrange(len(lines))
            key, sign, _ = lines[at].partition("=")
            match rng.randrange(5):
                case 0:
                    lines.insert(at, lines[rng.randrange(len(lines))])
                case 1:
                    lines[at] = ""
                case 2:
                    lines[at] = "[" * rng.choice([1, 50, 3000]) + lines[at]
                case 3:
                    lines[at] = f"{code} = {code!r}"
                case _:
                    try:
                        lines[at] = f"{key}{sign} {json.dumps(hostile_values(rng, code))}"
                    except ValueError:
                        continue
        return "\n".join(lines).encode("utf-8", "replace")

    return change


def in_npy(code: str) -> Mutation:
    """The header of a NumPy file said otherwise."""
    others = [
        ("'<f4'", "'|O'"), ("'<f4'", "'<f8'"), ("'<f4'", "('<f4', (99999999,))"), ("'<f4'", "[('a', '<f4')]"),
        ("'<f4'", "'V4'"), ("'<f4'", "'<U1'"), ("'<f4'", "'<M8[s]'"), ("'<f4'", "'>f4'"), ("'<f4'", "'<c8'"), ("'<f4'", code),
        ("False", "True"),
        ("shape': (", "shape': (9999999999, "), ("shape': (", "shape': (-1, "), ("shape': (", "shape': (0, "),
        ("shape': (", code),
        ("{", "{" * 300), ("'shape'", "'shapes'"), ("}", "}, {}"), ("shape': (", f"shape': ({'1, ' * 70}"),
    ]  # fmt: skip

    def change(rng: random.Random, content: bytes) -> bytes:
        if content[:6] != b"\x93NUMPY" or rng.random() < 0.3:
            return binary(rng, content)
        header, line, rest = content[10:].partition(b"\n")
        old, new = rng.choice(others)
        header = header.replace(old.encode(), new.encode()).rstrip()
        header += b" " * (-(len(header) + 11) % 64)
        return content[:8] + struct.pack("<H", min(len(header) + 1, 65535)) + header + line + rest

    return change


def in_safetensors(code: str) -> Mutation:
    """The header of a safetensors file, which is JSON, said otherwise."""
    of_header = in_json(code)

    def change(rng: random.Random, content: bytes) -> bytes:
        if rng.random() < 0.25:
            return binary(rng, content)
        size = int.from_bytes(content[:8], "little")
        header = of_header(rng, content[8 : 8 + size])
        said = len(header) if rng.random() < 0.9 else rng.choice(_NUMBERS) % 2**64
        return said.to_bytes(8, "little") + header + content[8 + size :]

    return change


def in_zip(by_name: Callable[[str], Mutation], code: str) -> Mutation:
    """Records of an archive changed by what they are, packed, encrypted, named twice, longer than they say, or added."""

    def change(rng: random.Random, content: bytes) -> bytes:
        if rng.random() < 0.15:
            return binary(rng, content)
        with zipfile.ZipFile(io.BytesIO(content)) as old:
            records = [(name, old.read(name)) for name in old.namelist()]
        at = rng.randrange(len(records))
        name, record = records[at]
        packed = zipfile.ZIP_STORED
        match rng.randrange(12):
            case 0:
                records.append((name, binary(rng, record)))
            case 1:
                root = name.partition("/")[0]
                other = [
                    "data/weights/model.pt",
                    "data/aotinductor/a.so",
                    "../../out",
                    "data/constants/custom_obj_0",
                    "x",
                    code,
                ]
                records.append((f"{root}/{rng.choice(other)}", rng.choice([record, b"cos\nsystem\n(S'true'\ntR."])))
            case 2:
                packed = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
                records.append((f"{name}_", bytes(rng.choice([10, 1 << 16, 1 << 22]))))
            case 3:
                del records[at]
            case 4:
                records[at] = (name, content)  # The archive within itself.
            case _:
                records[at] = (name, by_name(name)(rng, record))
        made = _zipped(records, packed)
        return _directory_changed(rng, made) if rng.random() < 0.2 else made

    return change


def _zipped(records: list[tuple[str, bytes]], packed: int) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", packed) as new:
        warnings.simplefilter("ignore")
        for name, record in records:
            new.writestr(zipfile.ZipInfo(name), record, compress_type=packed)
    return stream.getvalue()


def _directory_changed(rng: random.Random, content: bytes) -> bytes:
    """A field of one entry of the directory, or of its end."""
    made = bytearray(content)
    at = made.rfind(b"PK\5\6") if rng.random() < 0.3 else made.rfind(b"PK\1\2", 0, rng.randrange(len(made)) + 1)
    if at < 0:
        return content
    field = rng.choice([6, 8, 10, 12, 16, 20, 24, 28, 30, 42])
    made[at + field : at + field + 4] = struct.pack("<I", rng.choice(_NUMBERS) % 2**32)
    return bytes(made)


def several(*mutations: Mutation) -> Mutation:
    """One of them."""
    return lambda rng, content: rng.choice(mutations)(rng, content)

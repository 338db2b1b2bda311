"""Every kind of file that this package reads: one that is in order, how it is changed, and what reads it."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.export import Dim

from attacks.file_mutations import Mutation, binary, in_json, in_npy, in_safetensors, in_text, in_zip, several
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.choosing.cache import ChoiceCache
from reconvene.backends.estimate.kernel import _recall
from reconvene.backends.machines.targets import find_target
from reconvene.driver import api
from reconvene.driver.arrays import read_given
from reconvene.driver.cli.command_line import main
from reconvene.driver.masks import read_masks
from reconvene.driver.portfolio.manifest import Portfolio, Variant, open_portfolio, write_manifest
from reconvene.driver.serving.state import committed
from reconvene.driver.sweep import read_results
from reconvene.driver.training.checkpoint import Progress, Trainee, load_checkpoint, save_checkpoint
from reconvene.driver.training.levels import LEVELS_FILE, _described
from reconvene.frontend.base.file_cache import FileCache
from reconvene.frontend.data.datasets import cifar10, fashion_mnist, read_cache, tiny_imagenet, write_cache
from reconvene.frontend.data.facts import Colours, DataFacts
from reconvene.frontend.data.image_files import read_fitted, read_photograph
from reconvene.frontend.program_file import save_program
from reconvene.passes.plan import Plan

__all__ = ["Kind", "kinds"]


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        files: those that are in order, by path below the folder that the reader is given.
        changed: which of them is changed.
        mutation: how.
        read: gives an exit code if it is a verb of the command line, else None; what it raises is explained as a verb's error.
        weight: how many inputs it gets for one of the others.
    """

    name: str
    files: dict[str, bytes]
    changed: str
    mutation: Mutation
    read: Callable[[Path], Any]
    weight: int = 1


class Small(nn.Module):
    """A convolution, normalisation, a branch, sizes that vary: all that a stored program has."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))
        self.register_buffer("scale", torch.arange(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x).mean((2, 3)) * self.scale
        return torch.cat([y, y.new_zeros(y.shape[0], 2)], 1).reshape(x.shape[0] * 5)


def kinds(folder: Path, code: str) -> Iterator[Kind]:
    """All kinds. `folder` is for making them; `code` is Python that leaves a mark where it is run."""
    torch.manual_seed(0)
    yield from _programs(folder, code)
    yield from _arrays(code)
    yield from _images(folder, code)
    yield from _compiled(folder, code)
    yield from _trained(folder, code)
    yield from _caches(folder, code)


def _programs(folder: Path, code: str) -> Iterator[Kind]:
    x = torch.randn(2, 2, 4, 4)
    path = folder / "program.pt2"
    torch.export.save(torch.export.export(Small().eval(), (x,), dynamic_shapes=({0: Dim("n")},)), path)

    def by_name(name: str) -> Mutation:
        if name.endswith(".json"):
            return in_json(code)
        return in_zip(lambda _: binary, code) if "sample_inputs" in name else binary

    yield Kind("program", {"a.pt2": path.read_bytes()}, "a.pt2", in_zip(by_name, code), _explain, 4)
    # The graph alone is where most of a program is.
    graph = in_zip(lambda name: in_json(code) if "/models/" in name else lambda _, content: content, code)
    yield Kind("program's graph", {"a.pt2": path.read_bytes()}, "a.pt2", graph, _explain, 4)
    pruned = folder / "pruned.pt2"
    result = api.prune(Small().eval(), (x,), sparsity=0.5)
    notes: dict[str, Any] = {"data": DataFacts(("a", "b"), Colours((0.5,) * 3, (0.25,) * 3), 0.2)}
    save_program(result.module, (x,), pruned, certificate=dataclasses.asdict(result.certificate), **notes)
    yield Kind("pruned program", {"a.pt2": pruned.read_bytes()}, "a.pt2", in_zip(by_name, code), _explain)
    result.plan.save(folder / "plan.json")
    files = {name: (folder / name).read_bytes() for name in ("plan.json", "plan.safetensors")}
    yield Kind("plan", files, "plan.json", in_json(code), lambda at: Plan.load(at / "plan.json"), 2)
    tensors = in_safetensors(code)
    yield Kind("plan's tensors", files, "plan.safetensors", tensors, lambda at: _resealed(at / "plan.json"), 2)
    masks = {"masks.safetensors": files["plan.safetensors"]}
    yield Kind("masks", masks, "masks.safetensors", tensors, lambda at: read_masks(at / "masks.safetensors"), 2)


def _explain(folder: Path) -> int:
    return main(["explain", str(folder / "a.pt2")])


def _resealed(path: Path) -> Plan:
    """The plan, with the checksum of the tensors that there are."""
    import hashlib

    description = json.loads(path.read_text())
    description["sha256"] = hashlib.sha256(path.with_suffix(".safetensors").read_bytes()).hexdigest()
    path.write_text(json.dumps(description))
    return Plan.load(path)


def _arrays(code: str) -> Iterator[Kind]:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    stream = io.BytesIO()
    np.save(stream, x)
    yield Kind(
        "npy", {"a.npy": stream.getvalue()}, "a.npy", in_npy(code), lambda at: read_given([str(at / "a.npy")]), 2
    )
    for name, write in (("npz", np.savez), ("packed npz", np.savez_compressed)):
        stream = io.BytesIO()
        write(stream, x=x, y=x > 3)
        change = in_zip(lambda _: in_npy(code), code)
        yield Kind(name, {"a.npz": stream.getvalue()}, "a.npz", change, lambda at: read_given([str(at / "a.npz")]), 2)


def _images(folder: Path, code: str) -> Iterator[Kind]:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for kind in ("JPEG", "PNG", "PPM", "BMP", "WEBP"):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        yield Kind(
            kind.lower(), {"a.img": stream.getvalue()}, "a.img", binary, lambda at: read_photograph(at / "a.img", 56)
        )
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", exif=exif)
    turned = {"a.jpg": stream.getvalue()}
    yield Kind("a turned JPEG", turned, "a.jpg", binary, lambda at: read_fitted(at / "a.jpg", 24, 32))
    records = generator.integers(0, 10, (4, 3073), dtype=np.uint8).tobytes()
    where = "cifar-10-batches-bin/test_batch.bin"
    yield Kind("CIFAR's binary", {where: records}, where, binary, cifar10)
    where = "cifar-10-batches-py/test_batch"
    yield Kind("CIFAR's pickle", {where: _cifar_pickle()}, where, binary, cifar10)
    for suffix, pack in (("", bytes), (".gz", gzip.compress)):
        names = [f"t10k-{what}-ubyte{suffix}" for what in ("images-idx3", "labels-idx1")]
        contents = (
            struct.pack(">4B3I", 0, 0, 8, 3, 2, 28, 28) + bytes(1568),
            struct.pack(">4BI", 0, 0, 8, 1, 2) + b"\1\2",
        )
        files = {name: pack(content) for name, content in zip(names, contents, strict=True)}

        def inside(
            rng: Any, content: bytes, pack: Callable[[bytes], bytes] = pack, packed: bool = bool(suffix)
        ) -> bytes:
            whole = gzip.decompress(content) if packed and rng.random() < 0.6 else content
            return pack(binary(rng, whole)) if whole is not content else binary(rng, content)

        yield Kind(f"IDX{suffix}", files, names[0], inside, fashion_mnist)
    jpeg = io.BytesIO()
    Image.new("RGB", (32, 32)).save(jpeg, "JPEG")
    body = np.frombuffer(jpeg.getvalue(), np.uint8)
    stream = io.BytesIO()
    np.savez(stream, header=body[:20], test_body=body[20:], test_len=np.array([len(body) - 20]), test_y=np.array([3]))
    change = in_zip(lambda _: in_npy(code), code)
    yield Kind("CIFAR as JPEG", {"cifar10-jpeg.npz": stream.getvalue()}, "cifar10-jpeg.npz", change, cifar10)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    root = "tiny-imagenet-200"
    files = {
        f"{root}/wnids.txt": b"n01\nn02\n",
        f"{root}/val/val_annotations.txt": b"a.JPEG\tn02\t0\t0\t62\t57\n",
        f"{root}/val/images/a.JPEG": stream.getvalue(),
    }
    for changed in files:
        change = binary if changed.endswith("JPEG") else several(in_text(code), binary)
        yield Kind(f"Tiny ImageNet's {Path(changed).name}", files, changed, change, tiny_imagenet)


def _cifar_pickle() -> bytes:
    """As Python 2 wrote it, which knew one kind of string."""
    head = b"\x80\x02}(U\x06labels](K\x01K\x02eU\x04dataT"
    return head + struct.pack("<I", 2 * 3072) + bytes(2 * 3072) + b"u."


def _compiled(folder: Path, code: str) -> Iterator[Kind]:
    built = api.compile(Small().eval(), (torch.randn(2, 2, 4, 4),), "host")
    built.export(folder / "bundle")
    files = {path.name: path.read_bytes() for path in (folder / "bundle").iterdir()}
    for name in ("manifest.json", "SHA256SUMS"):
        change = several(in_json(code), binary) if name.endswith("json") else several(in_text(code), binary)
        yield Kind(f"bundle's {name}", files, name, change, open_bundle, 2)
    spec = built.inputs
    variant = Variant("small", 0.5, 10, 5, 40, 100, {"host": 1.0}, 1000, {}, None, {"from": "here"})
    portfolio = Portfolio(folder, "portfolio", spec, built.outputs, (variant,))
    files = {"portfolio.json": write_manifest(portfolio, folder).read_bytes()}
    yield Kind("portfolio", files, "portfolio.json", several(in_json(code), binary), open_portfolio, 2)
    noted = json.dumps({"format": 1, "portfolio": "portfolio", "variant": "small"}).encode()
    yield Kind(
        "served variant", {"a.json": noted}, "a.json", in_json(code), lambda at: committed(at / "a.json", portfolio)
    )
    target = (
        'triple = "aarch64-linux-gnu"\ncpu = "cortex-a72"\nfeatures = ["+neon"]\nlanes = 4\nregisters = 32\ncores = 4\n'
        'channel_multiple = 4\nl1_bytes = 32768\nl2_bytes = 1048576\nlink = ["g++"]\n'
    )
    change = several(in_text(code), binary)
    yield Kind("target", {"a.toml": target.encode()}, "a.toml", change, lambda at: find_target(str(at / "a.toml")), 2)


def _trained(folder: Path, code: str) -> Iterator[Kind]:
    path = folder / "checkpoint.safetensors"

    def trainee() -> Trainee:
        model = Small()
        return Trainee(model, torch.optim.AdamW(model.parameters()), Small())

    def load(at: Path) -> Any:
        return load_checkpoint(at / path.name, trainee(), "us")

    trained = trainee()
    trained.module(torch.randn(2, 2, 4, 4)).sum().backward()
    trained.optimizer.step()
    save_checkpoint(path, trained, Progress(3, 1.5, 0.1, 2, ({"epoch": 1, "loss": 0.5},)), "us")
    yield Kind("checkpoint", {path.name: path.read_bytes()}, path.name, in_safetensors(code), load, 2)
    levels = json.dumps({"format": "reconvene-levels/1", "identity": "us", "settings": {"seed": 0}}).encode()
    yield Kind("levels", {LEVELS_FILE: levels}, LEVELS_FILE, in_json(code), _described)
    lines = b'{"key": "a", "precision": "float32", "accuracy": 0.5}\n' * 3
    yield Kind(
        "sweep", {"a.jsonl": lines}, "a.jsonl", several(in_text(code), binary), lambda at: read_results(at / "a.jsonl")
    )


def _caches(folder: Path, code: str) -> Iterator[Kind]:
    FileCache(folder / "kept", 1 << 20).put("a", {"model.so": b"\x7fELF" * 50, "devc.o": bytes(900)})
    change = in_zip(lambda _: binary, code)
    kept = {"a.zip": (folder / "kept" / "a.zip").read_bytes()}
    yield Kind("library cache", kept, "a.zip", change, lambda at: FileCache(at, 1 << 20).get("a"))
    write_cache(folder / "data.npz", np.zeros((2, 3, 4, 4), np.uint8), np.zeros(2, np.int64))
    data = {"a.npz": (folder / "data.npz").read_bytes()}
    yield Kind("data cache", data, "a.npz", in_zip(lambda _: in_npy(code), code), lambda at: read_cache(at / "a.npz"))
    choices = ChoiceCache("host", 1, "time", folder)
    choices.put({0: ((), 0)})
    (path,) = folder.glob("choices-*.json")
    name = path.name

    def chosen(at: Path) -> Any:
        return ChoiceCache("host", 1, "time", at).get(())

    yield Kind("choice cache", {name: path.read_bytes()}, name, several(in_json(code), binary), chosen)
    cost = json.dumps({"name": "a", "hottest": None}).encode()
    yield Kind("cost cache", {"a.json": cost}, "a.json", in_json(code), lambda at: _recall(at / "a.json"))

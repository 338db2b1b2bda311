"""A network in runtimes of others, in float32: the files that it is shipped as, and a call that runs it once.

Each converts the network in the way its own documentation says, and computes on one thread in float32.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reconvene.backends.compile import compile
from reconvene.frontend.capture import capture
from reconvene.frontend.program_file import export_onnx

__all__ = ["RUNTIMES", "Shipped", "version_of"]


@dataclass(frozen=True)
class Shipped:
    """What a runtime makes of a network: the files that go to a device, and a call that gives one output of the inputs."""

    files: tuple[Path, ...]
    call: Callable[[], Tensor]

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)


def ours(module: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> Shipped:
    """A bundle: the code is in it, and nothing else is needed but the runtime of TVM."""
    built = compile(module, inputs, threads=1, choose="time")
    built.export(bundle := folder / "bundle")
    run = built.prepared(*inputs)
    files = tuple(path for path in bundle.rglob("*") if path.is_file())
    return Shipped(files, lambda: torch.from_numpy(run()[0].numpy()))


def onnxruntime(module: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> Shipped:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
    options.log_severity_level = 3
    path = _onnx(module, inputs, folder)
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = {entry.name: value.numpy() for entry, value in zip(session.get_inputs(), inputs, strict=True)}
    return Shipped(_all(folder), lambda: torch.from_numpy(session.run(None, given)[0]))


def openvino(module: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> Shipped:
    """Shipped as its own format, whose weights are in half precision unless it is told otherwise."""
    import openvino as ov

    core = ov.Core()
    network = core.read_model(_onnx(module, inputs, folder / "onnx"))
    ov.save_model(network, folder / "model.xml", compress_to_fp16=False)
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(folder / "model.xml"), "CPU", settings).create_infer_request()
    given = [value.numpy() for value in inputs]
    files = (folder / "model.xml", folder / "model.bin")
    return Shipped(files, lambda: torch.from_numpy(request.infer(given, share_inputs=True)[0]))


def ncnn(module: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> Shipped:
    """By pnnx, from ONNX; everything that would compute in half precision is off."""
    import ncnn as runtime
    import pnnx

    path = _onnx(module, inputs, folder)
    shapes = ",".join(f"[{','.join(map(str, value.shape))}]f32" for value in inputs)
    beside = Path(pnnx.__file__).resolve().parents[1] / "bin" / "pnnx"
    converter = str(beside) if beside.is_file() else shutil.which("pnnx") or "pnnx"
    done = subprocess.run(
        [converter, path.name, f"inputshape={shapes}", "fp16=0"], cwd=folder, capture_output=True, text=True
    )
    files = (folder / f"{path.stem}.ncnn.param", folder / f"{path.stem}.ncnn.bin")
    if done.returncode or not all(file.is_file() for file in files):
        raise RuntimeError(f"pnnx: {(done.stderr.strip().splitlines() or ['no file'])[-1][:200]}")
    network = runtime.Net()
    network.opt.num_threads = 1
    for name in dir(network.opt):
        if name.startswith(("use_fp16", "use_bf16", "use_int8")):
            setattr(network.opt, name, False)
    network.load_param(str(files[0]))
    network.load_model(str(files[1]))
    given = [runtime.Mat(value[0].numpy()) for value in inputs]

    def call() -> Tensor:
        extractor = network.create_extractor()
        for name, value in zip(network.input_names(), given, strict=True):
            extractor.input(name, value)
        _, found = extractor.extract(network.output_names()[0])
        return torch.from_numpy(found.numpy().copy())[None]

    return Shipped(files, call)


def executorch(module: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> Shipped:
    """All that XNNPACK takes is given to it."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    program = torch.export.export(module, inputs)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    (path := folder / "model.pte").write_bytes(lowered.buffer)
    method = Runtime.get().load_program(path).load_method("forward")
    return Shipped((path,), lambda: method.execute(list(inputs))[0].clone())


def _onnx(module: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    export_onnx(capture(module, inputs), inputs, path := folder / "model.onnx")
    return path


def _all(folder: Path) -> tuple[Path, ...]:
    return tuple(path for path in folder.rglob("*") if path.is_file())


Runtime = Callable[[nn.Module, tuple[Tensor, ...], Path], Shipped]

RUNTIMES: Mapping[str, tuple[Runtime, str]] = {
    "reconvene": (ours, "reconvene"),
    "ONNX Runtime": (onnxruntime, "onnxruntime"),
    "OpenVINO": (openvino, "openvino"),
    "ncnn": (ncnn, "ncnn"),
    "ExecuTorch (XNNPACK)": (executorch, "executorch"),
}
"""By name, with the package that says their version."""


def version_of(package: str) -> str | None:
    """Of a package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def failure(error: BaseException) -> str:
    """In one line."""
    told = [line for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {told[0].strip()[:200]}" if told[0] else type(error).__name__


def serve(connection: Any, name: str, module: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> None:
    """In a process of its own: sends what was made of the network, then the seconds of each call that is asked for, until it
    is asked for none.
    """
    import time

    sys.stdout = sys.stderr
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            made = RUNTIMES[name][0](module, inputs, folder)
            output = made.call()
            connection.send({"output": output.numpy(), "bytes": made.bytes})
            while connection.recv():
                began = time.perf_counter()
                made.call()
                connection.send(time.perf_counter() - began)
    except Exception as error:
        connection.send({"failed": failure(error)})

"""One model through each engine that benchmarks/latency.py compares: a call that does nothing but the forward pass."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from reconvene.backends.compile import compile
from reconvene.frontend.program_file import export_onnx

__all__ = ["ENGINES", "PACKAGES", "death", "difference", "lacking", "missing", "prepare", "values_of"]

Call = Callable[[], Any]
"""Runs the model once; its value is what the engine gives."""

PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino"}
"""Packages that an engine needs beyond our own."""


def prepare(engine: str, module: nn.Module, inputs: tuple[Any, ...], threads: int, choose: str) -> Call:
    """`module` on `engine` with `threads` threads, float32 throughout."""
    return ENGINES[engine](module, inputs, threads, choose)


def reconvene(module: nn.Module, inputs: tuple[Any, ...], threads: int, choose: str) -> Call:
    way: Any = choose
    return compile(module, inputs, threads=threads, choose=way).prepared(*inputs)


def tvm_default(module: nn.Module, inputs: tuple[Any, ...], threads: int, choose: str) -> Call:
    return compile(module, inputs, threads=threads, pipeline="tvm-default").prepared(*inputs)


def eager(module: nn.Module, inputs: tuple[Any, ...], threads: int, choose: str) -> Call:
    def call() -> Any:
        with torch.inference_mode():
            return module(*inputs)

    return call


def torch_compile(module: nn.Module, inputs: tuple[Any, ...], threads: int, choose: str) -> Call:
    """With freezing: weights become constants, so that inductor may fold and pack them."""
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    # For the whole process, and without ever resetting dynamo: a network that is compiled anew at a later call, because
    # another one was prepared after it, would be compiled under the settings of that moment.
    inductor.freezing = True
    dynamo.recompile_limit = 64
    compiled = torch.compile(module)

    def call() -> Any:
        with torch.no_grad():
            return compiled(*inputs)

    call()
    return call


def onnxruntime(module: nn.Module, inputs: tuple[Any, ...], threads: int, choose: str) -> Call:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Its threads must not spin while another engine has its turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(module, inputs, path)
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    fed = {entry.name: value.numpy() for entry, value in zip(session.get_inputs(), inputs, strict=True)}
    return lambda: session.run(None, fed)[0]


def openvino(module: nn.Module, inputs: tuple[Any, ...], threads: int, choose: str) -> Call:
    import openvino as ov

    core = ov.Core()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(module, inputs, path)
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Where the processor has bfloat16 it would be used.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
    fed = [value.numpy() for value in inputs]
    return lambda: request.infer(fed, share_inputs=True, share_outputs=True)[0]


ENGINES: dict[str, Callable[[nn.Module, tuple[Any, ...], int, str], Call]] = {
    "reconvene": reconvene,
    "tvm-default": tvm_default,
    "eager": eager,
    "torch.compile": torch_compile,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
}
"""By name."""


def missing(engine: str) -> str | None:
    """The package that `engine` lacks here, if any."""
    package = PACKAGES.get(engine)
    if package is None:
        return None
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return package
    return None


def lacking(engines: Iterable[str]) -> str | None:
    """What the first of `engines` that cannot run here needs, and what to do."""
    for engine in engines:
        if package := missing(engine):
            return f"engine {engine} needs the package {package}; pip install .[benchmarks], or name other engines"
    return None


def death(engine: str, module: nn.Module, inputs: tuple[Any, ...], threads: int, choose: str) -> str | None:
    """What an engine dies of that `module` is run on once, in a process of its own; None where it lives, or only raises."""
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            prepare(engine, module, inputs, threads, choose)()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else None


def values_of(got: Any) -> torch.Tensor:
    """What an engine gave, alone or as the only one of several."""
    if isinstance(got, np.ndarray | torch.Tensor):
        return torch.as_tensor(got)
    tensor = got if hasattr(got, "numpy") else got[0]  # Of TVM's.
    return torch.from_numpy(tensor.numpy())


def difference(got: Any, expected: torch.Tensor) -> float:
    """Largest difference from eager, relative to the largest output."""
    return float((values_of(got) - expected).abs().max() / expected.abs().max())

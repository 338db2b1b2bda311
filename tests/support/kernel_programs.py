"""Kernels run by themselves: in this process, or all of them in one program on an emulated core."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import tirx

from reconvene.backends.bundles.runtime_library import include_folders
from reconvene.backends.machines.emulation import find_emulator
from reconvene.backends.machines.linkers import find_linker, invoke
from reconvene.backends.machines.targets import Target

__all__ = ["Arrays", "aligned", "module_of", "run_emulated", "run_here", "run_library"]

Arrays = list[npt.NDArray[Any]]

_CODES = {"i": 0, "u": 1, "f": 2}

_HARNESS = """
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>
#include <tvm/ffi/c_api.h>
extern "C" {
typedef int (*Task)(int, void*, void*);
static void* allocate(int, int, uint64_t bytes, int, int) {
  void* data;
  return posix_memalign(&data, 64, bytes + 64) ? nullptr : data;
}
static int release(int, int, void* data) { free(data); return 0; }
static int launch(Task task, void* data, int) {
  struct { void* handle; int32_t tasks; } environment = {nullptr, 1};
  return task(0, &environment, data);
}
void* (*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate;
int (*__TVMBackendFreeWorkspace)(int, int, void*) = release;
int (*__TVMBackendParallelLaunch)(Task, void*, int) = launch;
void TVMFFIErrorSetRaisedFromCStrParts(const char*, const char** parts, int32_t count) {
  for (int32_t i = 0; i < count; i++) fputs(parts[i], stderr);
}
@DECLARATIONS@
}
typedef int (*Kernel)(void*, TVMFFIAny*, int, TVMFFIAny*);
static const Kernel kernels[] = {@NAMES@};
static int64_t number(FILE* file) { int64_t value = -1; return fread(&value, 8, 1, file) == 1 ? value : -1; }
int main(int, char** argv) {
  FILE *given = fopen(argv[1], "rb"), *found = fopen(argv[2], "wb");
  for (Kernel kernel : kernels) {
    const int count = int(number(given));
    std::vector<DLTensor> tensors(count);
    std::vector<int64_t> extents(count), sizes(count);
    std::vector<TVMFFIAny> arguments(count);
    for (int i = 0; i < count; i++) {
      const int code = int(number(given)), bits = int(number(given));
      extents[i] = number(given);
      sizes[i] = extents[i] * bits / 8;
      void* data;
      if (posix_memalign(&data, 64, sizes[i] + 64) || fread(data, 1, sizes[i], given) != size_t(sizes[i])) return 2;
      tensors[i] = DLTensor{};
      tensors[i].data = data;
      tensors[i].device = {kDLCPU, 0};
      tensors[i].ndim = 1;
      tensors[i].shape = &extents[i];
      tensors[i].dtype = {uint8_t(code), uint8_t(bits), 1};
      arguments[i] = TVMFFIAny{};
      arguments[i].type_index = kTVMFFIDLTensorPtr;
      arguments[i].v_ptr = &tensors[i];
    }
    TVMFFIAny result = {};
    if (kernel(nullptr, arguments.data(), count, &result)) return 3;
    for (int i = 0; i < count; i++) fwrite(tensors[i].data, 1, sizes[i], found);
  }
  fclose(found);
  return 0;
}
"""


def aligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy that begins where TVM expects arrays to."""
    room = np.empty(array.nbytes + 64, "uint8")
    start = -room.ctypes.data % 64
    made = room[start : start + array.nbytes].view(array.dtype)
    made[:] = array.reshape(-1)
    return made


def module_of(functions: Sequence[tirx.PrimFunc]) -> tvm.IRModule:
    """Functions under the names ``k0``, ``k1`` and so on."""
    return tvm.IRModule({f"k{i}": f.with_attr("global_symbol", f"k{i}") for i, f in enumerate(functions)})


def run_here(functions: Sequence[tirx.PrimFunc], arguments: Sequence[Arrays], target: Target) -> list[Arrays]:
    """Every function called with its arguments: these arrays as the call leaves them."""
    built = tvm.tirx.build(module_of(functions), target=tvm.target.Target(target.llvm()))
    return run_library(built, arguments)


def run_library(built: Any, arguments: Sequence[Arrays]) -> list[Arrays]:
    """The same with functions that were built or loaded."""
    results = []
    for number, arrays in enumerate(arguments):
        made = [aligned(array) for array in arrays]
        built[f"k{number}"](*[tvm.runtime.from_dlpack(array) for array in made])
        results.append(made)
    return results


def run_emulated(
    functions: Sequence[tirx.PrimFunc], arguments: Sequence[Arrays], target: Target, folder: Path
) -> list[Arrays]:
    """The same on QEMU's core for `target`, in one program that is made in `folder`."""
    tvm.tirx.build(module_of(functions), target=tvm.target.Target(target.llvm())).write_to_file(str(folder / "k.o"))
    names = [f"__tvm_ffi_k{number}" for number in range(len(functions))]
    declared = "\n".join(f"int {name}(void*, TVMFFIAny*, int, TVMFFIAny*);" for name in names)
    source = _HARNESS.replace("@DECLARATIONS@", declared).replace("@NAMES@", ", ".join(names))
    (folder / "harness.cc").write_text(source, encoding="utf-8")
    includes = [f"-I{include}" for include in include_folders()]
    files = [str(folder / "harness.cc"), str(folder / "k.o")]
    call = ["-std=c++17", "-O1", "-static", "-o", str(folder / "run"), *files, *includes]
    invoke(find_linker(target, "static", cxx=True), call, "link the kernels")
    (folder / "given").write_bytes(b"".join(map(_written, arguments)))
    command = [*find_emulator(target).command, str(folder / "run"), str(folder / "given"), str(folder / "found")]
    subprocess.run(command, check=True)
    found, at, results = (folder / "found").read_bytes(), 0, []
    for arrays in arguments:
        results.append([])
        for array in arrays:
            results[-1].append(np.frombuffer(found, array.dtype, array.size, at))
            at += array.nbytes
    return results


def _written(arrays: Arrays) -> bytes:
    parts = [np.array([len(arrays)], "int64").tobytes()]
    for array in arrays:
        head = [_CODES[array.dtype.kind], 8 * array.itemsize, array.size]
        parts += [np.array(head, "int64").tobytes(), array.tobytes()]
    return b"".join(parts)

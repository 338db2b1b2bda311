"""A model as C sources and objects without any runtime: its kernels, their weights, and a function that calls them in
turn with all memory reserved in advance.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import IRModule, relax, tirx
from tvm.ir import GlobalVar
from tvm_ffi import structural_map, structural_walk

from ..frontend.errors import InputError
from .bare import c_type, write_bare_program
from .built import Built
from .linkers import Linker, find_linker, invoke
from .object_files import sizes_of
from .places import WEIGHTS, constants_assembly
from .program import PROGRAM, runner_sources
from .state import State, state_bytes
from .weights import Place, pack

__all__ = ["Figures", "write_standalone"]

_CODES = {"f": 2, "i": 0, "u": 1, "b": 6}
"""DLPack's codes of the kinds of dtypes."""

_FLAGS = "-std=c11 -O2 -Wall -Wextra -ffunction-sections -fdata-sections".split()


@dataclass(frozen=True)
class Figures:
    """Bytes the model takes on its machine, its inputs, outputs and stack not counted.

    Attributes:
        flash: code, weights and other constants, from the program's own sections where one was linked, else from the
            objects; None where no compiler for the target is here to make the last of these.
        ram: `arena`, `workspace`, `state`, and what the C code itself keeps; None as `flash`.
        weights: of the weights alone, and of what the state begins with.
        arena: for values between kernels, shared by those that are not needed at the same time.
        workspace: for values within a kernel.
        state: for buffers that are kept from call to call.
    """

    flash: int | None
    ram: int | None
    weights: int
    arena: int
    workspace: int
    state: int


@dataclass(frozen=True)
class _Tensor:
    """A value: its memory's name (``input0``, ``output0``, ``state0``, ``weights``, ``arena``; before it is decided where
    outputs are written, ``result0``), and how it is seen there.
    """

    place: str
    offset: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class _KernelCall:
    kernel: str
    arguments: tuple[_Tensor, ...]


@dataclass(frozen=True)
class _Plan:
    """The model as a list of kernel calls."""

    calls: tuple[_KernelCall, ...]
    results: tuple[_Tensor, ...]


def write_standalone(built: Built, folder: Path) -> tuple[Place, ...]:
    """Writes ``reconvene_model.h`` and ``.c``, ``kernels.o``, ``weights.S`` and ``.bin``, and ``figures.json``; and the
    program ``run`` made of them where the machine has an operating system and a compiler for it is here.

    Raises:
        InputError: the model has a part that only TVM's runtime can do, or a dtype that C has no type for.
    """
    if built.scheduled is None:
        raise InputError("a model loaded from a bundle has no sources; compile it again")
    target = tvm.target.Target(built.target.llvm())
    alignment = built.arena.alignment
    blob = folder / "weights.bin"
    begun = [entry for entry in built.state if not entry.zero]
    with blob.open("wb") as stream:
        offsets = pack([*built.weights, *(entry.initial.numpy() for entry in begun)], stream, alignment)
    plan = _direct(_walk(built, offsets[: len(built.weights)]))
    initials = dict(zip(begun, offsets[len(built.weights) :], strict=True))
    workspace = _write_kernels(built.scheduled, target, folder / "kernels.o")
    assembly = constants_assembly(built.target, WEIGHTS, alignment, blob.name)
    (folder / "weights.S").write_text(assembly, encoding="utf-8")
    (folder / "reconvene_model.h").write_text(_header(built, alignment), encoding="utf-8")
    source = _source(built, plan, workspace, alignment, initials)
    (folder / "reconvene_model.c").write_text(source, encoding="utf-8")
    figures = Figures(None, None, blob.stat().st_size, built.arena.bytes, workspace, state_bytes(built.state))
    linker = _linker(built)
    if linker is not None:
        figures = _compiled(built, folder, linker, figures)
    (folder / "figures.json").write_text(json.dumps(asdict(figures), indent=2) + "\n", encoding="utf-8")
    return ()


def _linker(built: Built) -> Linker | None:
    try:
        return find_linker(built.target, "static")
    except InputError:
        # The sources are for any compiler; only what is made of them here is missing.
        return None


def _in_turn(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`function` with its parallel loops done in turn: here is nobody to share them with."""

    def serial(loop: Any) -> Any:
        if loop.kind != tirx.ForKind.PARALLEL:
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)

    return structural_map(function, (tirx.For, serial))


def _walk(built: Built, offsets: Sequence[int]) -> _Plan:
    """The calls of ``main`` in order. `offsets`: of the weights in their file."""
    main = built.scheduled["main"]
    values: dict[Any, Any] = {}
    outside: list[str] = []
    calls: list[_KernelCall] = []

    def valued(expression: Any) -> Any:
        if isinstance(expression, relax.Tuple):
            return tuple(valued(entry) for entry in expression.fields)
        if isinstance(expression, relax.TupleGetItem):
            return valued(expression.tuple_value)[expression.index]
        if isinstance(expression, relax.Var):
            return values[expression]
        if isinstance(expression, relax.Call):
            return called(expression)
        raise InputError(_unknown(type(expression).__name__))

    def called(call: Any) -> Any:
        if isinstance(call.op, GlobalVar):
            arguments = tuple(valued(argument) for argument in call.args)
            calls.append(_KernelCall(call.op.name_hint, arguments))
            return ()
        name = getattr(call.op, "name", str(call.op))
        if name == "relax.builtin.alloc_tensor":
            outside.append(f"result{len(outside)}")
            return _Tensor(outside[-1], 0, _shape(call.args[0]), str(call.args[1].value))
        if name in ("relax.reshape", "relax.memory.view"):
            source = valued(call.args[0])
            return _Tensor(source.place, source.offset, _shape(call.args[1]), source.dtype)
        raise InputError(_unknown(name))

    for parameter, place, offset in zip(main.params, *_parameter_places(built, offsets), strict=True):
        values[parameter] = _Tensor(place, offset, _shape(parameter.ty.shape), str(parameter.ty.dtype))
    for block in main.body.blocks:
        for binding in block.bindings:
            values[binding.var] = valued(binding.value)
    found = valued(main.body.body)
    return _Plan(tuple(calls), found if isinstance(found, tuple) else (found,))


def _parameter_places(built: Built, offsets: Sequence[int]) -> tuple[list[str], list[int]]:
    """The memory of each parameter of ``main``, and the offset in it."""
    slots = built.arena.slots
    own = [f"input{i}" for i in range(len(built.inputs))] + [f"state{i}" for i in range(len(built.state))]
    names = own + ["weights"] * len(offsets) + ["arena"] * len(slots)
    return names, [*[0] * len(own), *offsets, *(slot.offset for slot in slots)]


def _unknown(name: str) -> str:
    return f"the model needs '{name}' of TVM's runtime, so there is no way without it; use --runtime static"


def _shape(shape: Any) -> tuple[int, ...]:
    return tuple(int(extent) for extent in shape)


def _bytes(shape: Sequence[int], dtype: str) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _direct(plan: _Plan) -> _Plan:
    """`plan` with every value that is not in the arena where the caller wants an output."""
    wanted = {result.place: f"output{i}" for i, result in reversed(list(enumerate(plan.results)))}

    def move(tensor: _Tensor) -> _Tensor:
        place = wanted[tensor.place] if tensor.place.startswith("result") else tensor.place
        return replace(tensor, place=place)

    calls = tuple(_KernelCall(call.kernel, tuple(map(move, call.arguments))) for call in plan.calls)
    return _Plan(calls, tuple(map(move, plan.results)))


def _write_kernels(module: IRModule, target: tvm.target.Target, path: Path) -> int:
    """Compiles the kernels into `path`. Returns how many bytes of workspace they need."""
    functions = {name: function for name, function in module.functions.items() if isinstance(function, tirx.PrimFunc)}
    kernels = {name: _in_turn(f).with_attr("global_symbol", name.name_hint) for name, f in functions.items()}
    pipeline, finish, _ = tirx.get_tir_pipeline("default")
    bound = tirx.transform.BindTarget(target.with_host(target))(IRModule(kernels, attrs=module.attrs))
    # What the entries would check is known when the calls of them are written.
    lowered = tirx.transform.SkipAssert()(finish()(pipeline(bound)))
    tvm.get_global_func("target.build.llvm")(lowered, target).write_to_file(str(path), "o")
    return max((_workspace(function) for function in lowered.functions.values()), default=0)


def _workspace(function: tirx.PrimFunc) -> int:
    """Bytes of all workspace of a lowered kernel, as if it were in use at the same time."""
    sizes: list[int] = []

    def visit(buffer: Any) -> None:
        if getattr(getattr(buffer.data, "op", None), "name", "") == "tirx.TVMBackendAllocWorkspace":
            sizes.append(-(-int(buffer.data.args[2]) // 64) * 64)

    structural_walk(function, (tirx.DeclBuffer, visit))
    return sum(sizes)


def _parameters(built: Built) -> str:
    words = [f"const {c_type(spec.dtype)} *input{i}" for i, spec in enumerate(built.inputs)]
    words += [f"{c_type(spec.dtype)} *output{i}" for i, spec in enumerate(built.outputs)]
    return ", ".join(words)


def _header(built: Built, alignment: int) -> str:
    described = [f" *   input{i}   {spec}, '{spec.name}'" for i, spec in enumerate(built.inputs)]
    described += [f" *   output{i}  {spec}" for i, spec in enumerate(built.outputs)]
    rows = "\n".join(described)
    kept = "".join(f" *   {entry.spec}, '{entry.name}'\n" for entry in built.state)
    reset = f"""
/* The model keeps these from one call to the next, in memory of its own:
 *
{kept} *
 * This makes them what they were before the first call. Call it where a new stream of inputs begins. */
void reconvene_reset(void);
"""
    return f"""/* A model compiled for {built.target.name} ({built.target.triple}, {built.target.cpu}). */
#ifndef RECONVENE_MODEL_H
#define RECONVENE_MODEL_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

/* Arrays given to reconvene_run are declared with this. */
#define RECONVENE_ALIGNED __attribute__((aligned({alignment})))

/* What reconvene_run returns when an array is not aligned, or a kernel fails. */
#define RECONVENE_UNALIGNED 1
#define RECONVENE_FAILED 2

/* Runs the model; returns 0 when all went well. Arrays are in C order:
 *
{rows}
 *
 * All memory is reserved in advance, so only one call may run at a time. */
int reconvene_run({_parameters(built)});
{reset if built.state else ""}
#ifdef __cplusplus
}}
#endif
#endif
"""


def _source(built: Built, plan: _Plan, workspace: int, alignment: int, initials: Mapping[State, int]) -> str:
    tensors: dict[_Tensor, str] = {}
    for call in plan.calls:
        for tensor in call.arguments:
            tensors.setdefault(tensor, f"t{len(tensors)}")
    outside = {t: name for t, name in tensors.items() if t.place.startswith(("input", "output"))}
    lines = [
        '#include "reconvene_model.h"',
        "",
        "#include <stddef.h>",
        "#include <string.h>",
        "",
        _TEMPLATE,
        f"static uint8_t arena[{max(1, built.arena.bytes)}] RECONVENE_ALIGNED;",
        "extern const uint8_t reconvene_weights[];",
        _workspace_source(workspace),
        *_state_source(built, initials),
    ]
    shapes = {tensor.shape: "" for tensor in tensors}
    for index, shape in enumerate(shapes):
        shapes[shape] = f"s{index}"
        lines.append(f"static const int64_t s{index}[] = {{{', '.join(map(str, shape)) or '1'}}};")
    for tensor, name in tensors.items():
        qualifier = "" if tensor in outside else "const "
        lines.append(f"static {qualifier}tensor {name} = {_tensor(tensor, shapes[tensor.shape])};")
    kernels = dict.fromkeys(call.kernel for call in plan.calls)
    lines += [f"int __tvm_ffi_{name}(void *, any *, int32_t, any *);" for name in kernels]
    lines += ["", f"int reconvene_run({_parameters(built)}) {{"]
    pointers = [f"(uintptr_t)input{i}" for i in range(len(built.inputs))]
    pointers += [f"(uintptr_t)output{i}" for i in range(len(built.outputs))]
    lines.append(f"  if (({' | '.join(pointers)}) % {alignment}) return RECONVENE_UNALIGNED;")
    if built.state:
        lines.append("  if (!begun) reconvene_reset();")
    lines += [f"  {name}.data = (void *){tensor.place};" for tensor, name in outside.items()]
    for call in plan.calls:
        arguments = ", ".join(f"&{tensors[tensor]}" for tensor in call.arguments)
        lines.append(f"  if (call(__tvm_ffi_{call.kernel}, {len(call.arguments)}, (const tensor *[]){{{arguments}}}))")
        lines.append("    return RECONVENE_FAILED;")
    for index, result in enumerate(plan.results):
        if result.place != f"output{index}":
            source = _MEMORY.get(result.place, result.place)
            at = f"(const uint8_t *){source} + {result.offset}"
            lines.append(f"  memcpy(output{index}, {at}, {_bytes(result.shape, result.dtype)});")
    most = max((len(call.arguments) for call in plan.calls), default=1)
    return "\n".join([*lines, "  return 0;", "}", ""]).replace("@MOST@", str(max(1, most)))


def _tensor(tensor: _Tensor, shape: str) -> str:
    kind = np.dtype(tensor.dtype)
    outside = tensor.place.startswith(("input", "output"))
    data = "NULL" if outside else f"(uint8_t *){_MEMORY.get(tensor.place, tensor.place)} + {tensor.offset}"
    code = f"{_CODES[tensor.dtype[0]]}, {kind.itemsize * 8}, 1"
    return f"{{{data}, 1, 0, {len(tensor.shape)}, {code}, (int64_t *){shape}, NULL, 0}}"


_MEMORY = {"weights": WEIGHTS}
"""Names in C of what is called otherwise here."""


def _state_source(built: Built, initials: Mapping[State, int]) -> list[str]:
    """The memory of the state, and the function that makes it what it begins with."""
    if not built.state:
        return []
    lines = [
        f"static uint8_t state{i}[{max(1, s.initial.nbytes)}] RECONVENE_ALIGNED;" for i, s in enumerate(built.state)
    ]
    lines += ["static int begun;", "", "void reconvene_reset(void) {"]
    for number, entry in enumerate(built.state):
        size = entry.initial.nbytes
        stored = f"memcpy(state{number}, {WEIGHTS} + {initials[entry]}, {size})" if entry in initials else ""
        lines.append(f"  {stored or f'memset(state{number}, 0, {size})'};")
    return [*lines, "  begun = 1;", "}", ""]


_TEMPLATE = """/* Tensors and arguments as TVM's kernels take them: DLPack's DLTensor, and TVMFFIAny. */
typedef struct {
  void *data;
  int32_t device, device_id, rank;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} tensor;

typedef struct {
  int32_t type, padding;
  union {
    const void *pointer;
    int64_t number;
  } value;
} any;

enum { TENSOR_POINTER = 7, CPU = 1 };

static int call(int (*kernel)(void *, any *, int32_t, any *), int count, const tensor **tensors) {
  any arguments[@MOST@], result;
  memset(arguments, 0, sizeof arguments);
  memset(&result, 0, sizeof result);
  for (int i = 0; i < count; ++i) {
    arguments[i].type = TENSOR_POINTER;
    arguments[i].value.pointer = tensors[i];
  }
  return kernel(NULL, arguments, count, &result);
}

/* Kernels report here why they fail; reconvene_run says that they did. */
__attribute__((weak)) void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
  (void)kind, (void)parts, (void)count;
}
"""


def _workspace_source(workspace: int) -> str:
    """Memory within kernels: taken and given back like a stack, and never more than was counted."""
    if not workspace:
        return ""
    return f"""
static uint8_t workspace[{workspace}] RECONVENE_ALIGNED;
static size_t used;

static void *take(int device, int id, uint64_t bytes, int code, int bits) {{
  (void)device, (void)id, (void)code, (void)bits;
  const size_t size = ((size_t)bytes + 63) / 64 * 64;
  if (used + size > sizeof workspace) return NULL;
  used += size;
  return workspace + used - size;
}}

static int give_back(int device, int id, void *memory) {{
  (void)device, (void)id;
  used = (size_t)((uint8_t *)memory - workspace);
  return 0;
}}

void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = take;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = give_back;
"""


def _compiled(built: Built, folder: Path, linker: Linker, figures: Figures) -> Figures:
    """The figures with those of the compiled sources; and the program, where there is a system to run it."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        objects = [folder / "kernels.o", work / "model.o", work / "weights.o"]
        flags = [*_FLAGS, *_cpu_flags(built)]
        invoke(
            linker, [*flags, "-x", "c", "-c", "reconvene_model.c", "-o", str(objects[1])], "compile the model", folder
        )
        invoke(linker, [*_cpu_flags(built), "-c", "weights.S", "-o", str(objects[2])], "assemble the weights", folder)
        sizes = sizes_of(objects)
        if built.target.bare:
            sizes = write_bare_program(built, folder, linker, [*_cpu_flags(built)], objects, work) or sizes
        else:
            (work / "glue.cc").write_text(_glue(built), encoding="utf-8")
            sources = [*runner_sources(built, work, "standalone.cc", threads=1), work / "glue.cc"]
            options = [
                "-std=c++17",
                "-O2",
                "-fno-exceptions",
                "-fno-rtti",
                f"-I{folder}",
                "-static",
                "-Wl,--gc-sections",
                # ziglang's C library comes with what a debugger wants to know of it. Names stay, for profilers.
                "-Wl,--strip-debug",
            ]
            files = [str(path) for path in (*sources, *objects)]
            invoke(linker, [*options, *files, "-lm", "-o", str(folder / PROGRAM)], "link the program")
    return replace(figures, flash=sizes.flash, ram=sizes.ram)


def _cpu_flags(built: Built) -> list[str]:
    """What the C compiler must know so that its objects go with the kernels."""
    if not built.target.bare:
        return []
    unit = {"cortex-m4": "fpv4-sp-d16", "cortex-m7": "fpv5-d16"}.get(built.target.cpu, "auto")
    return [f"-mcpu={built.target.cpu}", "-mthumb", f"-mfloat-abi={built.target.float_abi or 'soft'}", f"-mfpu={unit}"]


def _glue(built: Built) -> str:
    """Calls reconvene_run with arrays that are known by number."""
    inputs = [f"static_cast<const {c_type(s.dtype)}*>(inputs[{i}])" for i, s in enumerate(built.inputs)]
    outputs = [f"static_cast<{c_type(s.dtype)}*>(outputs[{i}])" for i, s in enumerate(built.outputs)]
    reset = "reconvene_reset();" if built.state else ""
    return (
        '#include "reconvene_model.h"\n\n'
        "int reconvene_run_arrays(void* const* inputs, void* const* outputs) {\n"
        f"  return reconvene_run({', '.join(inputs + outputs)});\n}}\n"
        f"void reconvene_reset_arrays() {{ {reset} }}\n"
    )

"""The C sources of a model without a runtime: a header, and a function that calls the kernels in turn."""

from __future__ import annotations

from collections.abc import Mapping

from ..artifact import Artifact
from ..dtypes import DTYPES, tensor_bytes
from ..state import State
from .bare import c_type
from .call_plan import CallPlan, Tensor
from .places import WEIGHTS

__all__ = ["header_source", "model_source"]

"""DLPack's codes of the kinds of dtypes."""


def _parameters(artifact: Artifact) -> str:
    words = [f"const {c_type(spec.dtype)} *input{i}" for i, spec in enumerate(artifact.inputs)]
    words += [f"{c_type(spec.dtype)} *output{i}" for i, spec in enumerate(artifact.outputs)]
    return ", ".join(words)


def header_source(artifact: Artifact, alignment: int) -> str:
    """``reconvene_model.h``: what a C program calls."""
    described = [f" *   input{i}   {spec}, '{spec.name}'" for i, spec in enumerate(artifact.inputs)]
    described += [f" *   output{i}  {spec}" for i, spec in enumerate(artifact.outputs)]
    rows = "\n".join(described)
    kept = "".join(f" *   {entry.spec}, '{entry.name}'\n" for entry in artifact.state)
    reset = f"""
/* The model keeps these from one call to the next, in memory of its own:
 *
{kept} *
 * This makes them what they were before the first call. Call it where a new stream of inputs begins. */
void reconvene_reset(void);
"""
    return f"""/* A model compiled for {artifact.target.name} ({artifact.target.triple}, {artifact.target.cpu}). */
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

{_scales(artifact)}/* Runs the model; returns 0 when all went well. Arrays are in C order:
 *
{rows}
 *
 * All memory is reserved in advance, so only one call may run at a time. */
int reconvene_run({_parameters(artifact)});
{reset if artifact.state else ""}
#ifdef __cplusplus
}}
#endif
#endif
"""


def _scales(artifact: Artifact) -> str:
    """What codes stand for, as numbers that a program can use."""
    ends = [(f"INPUT{i}", spec) for i, spec in enumerate(artifact.inputs)]
    ends += [(f"OUTPUT{i}", spec) for i, spec in enumerate(artifact.outputs)]
    lines = [
        f"#define RECONVENE_{name}_SCALE {spec.codes.scale!r}f\n#define RECONVENE_{name}_ZERO_POINT {spec.codes.zero_point}\n"
        for name, spec in ends
        if spec.codes is not None
    ]
    if not lines:
        return ""
    return "".join(["/* A code stands for SCALE * (code - ZERO_POINT). */\n", *lines, "\n"])


def model_source(
    artifact: Artifact, plan: CallPlan, workspace: int, alignment: int, initials: Mapping[State, int]
) -> str:
    """``reconvene_model.c``. `initials`: of buffers that begin otherwise than with zeros, where in the weights' file."""
    tensors: dict[Tensor, str] = {}
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
        f"static uint8_t arena[{max(1, artifact.arena.bytes)}] RECONVENE_ALIGNED;",
        "extern const uint8_t reconvene_weights[];",
        _workspace_source(workspace),
        *_state_source(artifact, initials),
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
    lines += ["", f"int reconvene_run({_parameters(artifact)}) {{"]
    pointers = [f"(uintptr_t)input{i}" for i in range(len(artifact.inputs))]
    pointers += [f"(uintptr_t)output{i}" for i in range(len(artifact.outputs))]
    lines.append(f"  if (({' | '.join(pointers)}) % {alignment}) return RECONVENE_UNALIGNED;")
    if artifact.state:
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
            lines.append(f"  memcpy(output{index}, {at}, {tensor_bytes(result.shape, result.dtype)});")
    most = max((len(call.arguments) for call in plan.calls), default=1)
    return "\n".join([*lines, "  return 0;", "}", ""]).replace("@MOST@", str(max(1, most)))


def _tensor(tensor: Tensor, shape: str) -> str:
    kind = DTYPES[tensor.dtype]
    outside = tensor.place.startswith(("input", "output"))
    data = "NULL" if outside else f"(uint8_t *){_MEMORY.get(tensor.place, tensor.place)} + {tensor.offset}"
    code = f"{kind.code}, {kind.bytes * 8}, 1"
    return f"{{{data}, 1, 0, {len(tensor.shape)}, {code}, (int64_t *){shape}, NULL, 0}}"


_MEMORY = {"weights": WEIGHTS}
"""Names in C of what is called otherwise here."""


def _state_source(artifact: Artifact, initials: Mapping[State, int]) -> list[str]:
    """The memory of the state, and the function that makes it what it begins with."""
    if not artifact.state:
        return []
    lines = [
        f"static uint8_t state{i}[{max(1, s.initial.nbytes)}] RECONVENE_ALIGNED;" for i, s in enumerate(artifact.state)
    ]
    lines += ["static int begun;", "", "void reconvene_reset(void) {"]
    for number, entry in enumerate(artifact.state):
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

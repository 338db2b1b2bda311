"""Relax to a flat list of kernel calls whose memory is planned: what every runtime executes.

Weights and the values between kernels become parameters of ``main``, after the model's inputs. So the code holds no
weights (they are read where they lie, and the same code serves a network that was trained on), and allocates nothing but
the outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import IRModule, relax
from tvm.ir import GenericConst
from tvm.relax import transform
from tvm_ffi import structural_map

from ..legalizations import LEGALIZATIONS
from .arena import Arena, plan_arena
from .write_back import write_back

__all__ = ["Lowered", "finish", "lower"]


@dataclass(frozen=True, eq=False)
class Lowered:
    """A module whose ``main`` takes the model's inputs and state, then `weights` in order, then the tensors of `arena`."""

    module: IRModule
    weights: tuple[Any, ...]
    arena: Arena


def lower(module: IRModule, target: tvm.target.Target, alignment: int, states: int = 0) -> Lowered:
    """`module` (Relax and kernels) with explicit memory. Values in the arena lie at multiples of `alignment` bytes.

    The last `states` of its inputs are buffers, which each call leaves as the last outputs say; these are outputs no more.
    """
    first = len(module["main"].params) - states
    with target:
        legal = [
            relax.backend.DispatchSampling(),
            relax.backend.DispatchSortScan(),
            transform.LegalizeOps(dict(LEGALIZATIONS)),
        ]
        lifted, weights = _lift_constants(tvm.transform.Sequential(legal)(module))
        passes = [
            transform.RewriteDataflowReshape(),
            transform.ToNonDataflow(),
            transform.RemovePurityChecking(),
            transform.CallTIRRewrite(),
        ]
        called = write_back(tvm.transform.Sequential(passes)(lifted), first, states)
    main, arena = plan_arena(called["main"], alignment)
    return Lowered(_with_main(called, main), weights, arena)


def finish() -> tvm.transform.Pass:
    """What is left to do on a lowered module for TVM's virtual machine."""
    return tvm.transform.Sequential(
        [
            transform.LowerAllocTensor(),
            transform.KillAfterLastUse(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
            transform.AttachGlobalSymbol(),
        ]
    )


def _lift_constants(module: IRModule) -> tuple[IRModule, tuple[Any, ...]]:
    """Every tensor that ``main`` knows as a further parameter of it, and the tensors."""
    main = module["main"]
    lifted: dict[Any, relax.Var] = {}

    def parameter(constant: Any) -> relax.Var:
        if constant not in lifted:
            lifted[constant] = relax.Var(f"weight{len(lifted)}", constant.ty)
        return lifted[constant]

    body = structural_map(main.body, (GenericConst, parameter))
    function = relax.Function([*main.params, *lifted.values()], body, main.ret_ty, main.is_pure, main.attrs)
    return _with_main(module, function), tuple(constant.value for constant in lifted)


def _with_main(module: IRModule, main: Any) -> IRModule:
    functions = {variable: function for variable, function in module.functions_items() if variable.name_hint != "main"}
    return IRModule({**functions, module.get_global_var("main"): main}, attrs=module.attrs)

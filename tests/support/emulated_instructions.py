"""Code for x86 cores with instructions that this machine may lack, run here: their intrinsics are replaced by definitions."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import tvm
from tvm import tirx

from reconvene.backends.estimate.tools import compiler, llvm_tool
from reconvene.backends.machines.targets import Target, find_target
from tests.support.kernel_programs import Arrays, module_of, run_library

__all__ = ["run_replaced"]


def run_replaced(
    functions: Sequence[tirx.PrimFunc], arguments: Sequence[Arrays], target: Target, folder: Path, names: set[str]
) -> list[Arrays]:
    """As `kernel_programs.run_here` of code for `target`, an x86 core, on this one. The intrinsics that were replaced are added
    to `names`. The test is skipped on other machines than x86.
    """
    if find_target("host").architecture != "x86_64":
        pytest.skip("its code is for x86")
    built = tvm.tirx.build(module_of(functions), target=tvm.target.Target(target.llvm()))
    here = find_target("host").cpu
    text = re.sub(r'"target-features"(="[^"]*")?', "", built.inspect_source("ll"))
    text = re.sub(r'"target-cpu"="[^"]*"', f'"target-cpu"="{here}"', text)
    found = dict(re.findall(r"^declare .*@(llvm\.x86\.[\w.]+)(\(.*)$", text, re.MULTILINE))
    names |= set(found)
    text = re.sub(r"^declare .*@llvm\.x86\..*$", "", text, flags=re.MULTILINE).replace("@llvm.x86.", "@replaced.")
    rounding = "".join(f"declare <{n} x float> @llvm.roundeven.v{n}f32(<{n} x float>)\n" for n in (4, 8, 16))
    text += rounding + "\n".join(_definition(name) for name in found)
    (folder / "k.ll").write_text(text, encoding="utf-8")
    call = [f"-mcpu={here}", "-relocation-model=pic", "-O1", "-filetype=obj", "-o", str(folder / "k.o")]
    subprocess.run([llvm_tool("llc"), *call, str(folder / "k.ll")], check=True)
    subprocess.run([compiler(), "-shared", "-o", str(folder / "k.so"), str(folder / "k.o")], check=True)
    return run_library(tvm.runtime.load_module(str(folder / "k.so")), arguments)


def _definition(name: str) -> str:
    """By Intel's manual, for any length of vector."""
    for pattern, define in _DEFINITIONS.items():
        if re.fullmatch(pattern, name):
            return define(name)
    raise AssertionError(f"no definition of {name}")


def _bits(name: str) -> int:
    """Of its vectors."""
    ending = name.rpartition(".")[2]
    return int(ending) if ending in ("128", "256", "512") else 256


def _replaced(name: str, result: str, parameters: str, body: Sequence[str]) -> str:
    lines = "\n".join(f"  {line}" for line in body)
    return f"define internal {result} @{name.replace('llvm.x86', 'replaced')}({parameters}) {{\n{lines}\n}}\n"


def _every(start: int, step: int, count: int) -> str:
    """A mask of a shuffle."""
    return f"<{count} x i32> <{', '.join(f'i32 {start + step * i}' for i in range(count))}>"


def _unsigned_by_signed(name: str) -> str:
    """vpdpbusd: four products of bytes, the first without and the second with a sign, added without saturation."""
    n = _bits(name) // 32
    body = [f"%w0 = zext <{4 * n} x i8> %a to <{4 * n} x i32>", f"%w1 = sext <{4 * n} x i8> %b to <{4 * n} x i32>"]
    body.append(f"%p = mul <{4 * n} x i32> %w0, %w1")
    before = "%c"
    for k in range(4):
        body.append(f"%p{k} = shufflevector <{4 * n} x i32> %p, <{4 * n} x i32> poison, {_every(k, 4, n)}")
        body.append(f"%s{k} = add <{n} x i32> {before}, %p{k}")
        before = f"%s{k}"
    body.append(f"ret <{n} x i32> {before}")
    return _replaced(name, f"<{n} x i32>", f"<{n} x i32> %c, <{4 * n} x i8> %a, <{4 * n} x i8> %b", body)


def _pairs(name: str) -> str:
    """pmaddwd: two products of 16 bits with signs."""
    n = {"llvm.x86.sse2.pmadd.wd": 4, "llvm.x86.avx2.pmadd.wd": 8}.get(name, 16)
    body = [f"%w{i} = sext <{2 * n} x i16> %{v} to <{2 * n} x i32>" for i, v in enumerate("ab")]
    body.append(f"%p = mul <{2 * n} x i32> %w0, %w1")
    body += [f"%p{k} = shufflevector <{2 * n} x i32> %p, <{2 * n} x i32> poison, {_every(k, 2, n)}" for k in (0, 1)]
    body += [f"%s = add <{n} x i32> %p0, %p1", f"ret <{n} x i32> %s"]
    return _replaced(name, f"<{n} x i32>", f"<{2 * n} x i16> %a, <{2 * n} x i16> %b", body)


def _pack(wide: int, low: int, high: int) -> Callable[[str], str]:
    """Of every 128 bits, the elements of both vectors, in half of the bits, saturated."""

    def define(name: str) -> str:
        n = _bits(name) // wide  # Elements of one vector.
        part = 128 // wide
        order = [i + source * n for at in range(0, n, part) for source in (0, 1) for i in range(at, at + part)]
        mask = f"<{2 * n} x i32> <{', '.join(f'i32 {i}' for i in order)}>"
        body = [f"%j = shufflevector <{n} x i{wide}> %a, <{n} x i{wide}> %b, {mask}"]
        for step, (name_of, bound) in enumerate((("smax", low), ("smin", high))):
            given = "%j" if not step else "%m0"
            limit = f"<{', '.join([f'i{wide} {bound}'] * 2 * n)}>"
            kind = f"<{2 * n} x i{wide}>"
            test = "sgt" if name_of == "smax" else "slt"
            body.append(f"%t{step} = icmp {test} {kind} {given}, {limit}")
            body.append(f"%m{step} = select <{2 * n} x i1> %t{step}, {kind} {given}, {kind} {limit}")
        body.append(f"%r = trunc <{2 * n} x i{wide}> %m1 to <{2 * n} x i{wide // 2}>")
        body.append(f"ret <{2 * n} x i{wide // 2}> %r")
        return _replaced(name, f"<{2 * n} x i{wide // 2}>", f"<{n} x i{wide}> %a, <{n} x i{wide}> %b", body)

    return define


def _to_whole(name: str) -> str:
    """cvtps2dq: half to even; the least int32 where there is none."""
    n = {"llvm.x86.sse2.cvtps2dq": 4, "llvm.x86.avx.cvt.ps2dq.256": 8}.get(name, 16)
    whole, real = f"<{n} x i32>", f"<{n} x float>"
    body = [f"%e = call {real} @llvm.roundeven.v{n}f32({real} %a)"]
    for step, (test, bound) in enumerate((("olt", "0x41E0000000000000"), ("oge", "0xC1E0000000000000"))):
        limit = f"<{', '.join([f'float {bound}'] * n)}>"
        body.append(f"%t{step} = fcmp {test} {real} %e, {limit}")
    body.append(f"%in = and <{n} x i1> %t0, %t1")
    body.append(f"%safe = select <{n} x i1> %in, {real} %e, {real} zeroinitializer")
    body.append(f"%w = fptosi {real} %safe to {whole}")
    least = f"<{', '.join(['i32 -2147483648'] * n)}>"
    body += [f"%r = select <{n} x i1> %in, {whole} %w, {whole} {least}", f"ret {whole} %r"]
    rest = ", <16 x i32> %b, i16 %m, i32 %r0" if n == 16 else ""
    return _replaced(name, whole, f"{real} %a{rest}", body)


_DEFINITIONS: dict[str, Callable[[str], str]] = {
    r"llvm\.x86\.avx512\.vpdpbusd\.\d+": _unsigned_by_signed,
    r"llvm\.x86\.\w+\.pmadd.*": _pairs,
    r"llvm\.x86\.(sse2\.cvtps2dq|avx\.cvt\.ps2dq\.256|avx512\.mask\.cvtps2dq\.512)": _to_whole,
    r"llvm\.x86\.\w+\.packssdw(\.\d+)?": _pack(32, -32768, 32767),
    r"llvm\.x86\.\w+\.packsswb(\.\d+)?": _pack(16, -128, 127),
    r"llvm\.x86\.\w+\.packuswb(\.\d+)?": _pack(16, 0, 255),
}

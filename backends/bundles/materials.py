"""What the programs and libraries of a bundle are made of: whose code is in them, under which licence, and what compiled it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

from ...frontend.base.errors import InputError
from ..machines.linkers import Linker, find_linker
from ..machines.targets import Target

__all__ = ["Compiler", "Contents", "Material", "bundle_contents", "own_license", "server_contents"]


@dataclass(frozen=True)
class Material:
    """Code of others, or of ours, that is in a file of a bundle.

    Attributes:
        version: None where its compiler does not say.
        license: an SPDX expression; None where it is not known.
        what: it is, for a person.
        texts: of its licence, which go with it; none where the licence asks for none in programs.
        notice: what its NOTICE file says, which goes with it too.
        package: whether it is a distribution of Python's package index.
    """

    name: str
    version: str | None
    license: str | None
    what: str
    texts: tuple[str, ...] = ()
    notice: str = ""
    package: bool = False


@dataclass(frozen=True)
class Compiler:
    """What linked the files of a bundle, and compiled those that TVM did not."""

    name: str
    version: str
    described: str


@dataclass(frozen=True)
class Contents:
    """Everything in a bundle that is not the model's.

    Attributes:
        materials: ours first.
        compiler: None where none was needed.
    """

    materials: tuple[Material, ...]
    compiler: Compiler | None

    @property
    def relinkable(self) -> tuple[Material, ...]:
        """Libraries in the program that whoever gets it must be able to exchange."""
        return tuple(material for material in self.materials if (material.license or "").startswith("LGPL"))


def bundle_contents(target: Target, runtime: str, linked: bool, program: bool) -> Contents:
    """What is in a bundle of this runtime: without `linked`, only objects; without `program`, no file that runs by itself."""
    if not linked or (runtime == "none" and not program):
        return Contents((_own(),), None)
    if runtime == "python":
        return Contents((_own(),), _compiler(find_linker(target, "library")))
    if runtime == "wheel":
        linker = find_linker(target, "program")
        return Contents((_own(), *_tvm(wheel=True), *_support(linker)), _compiler(linker))
    linker = find_linker(target, "static", cxx=runtime == "static")
    tvm = _tvm(wheel=False) if runtime == "static" else ()
    # The runner of a model without a runtime takes nothing of C++'s library from a compiler that leaves it out.
    cxx = runtime == "static" or (linker.kind != "zig" and not target.bare)
    return Contents((_own(), *tvm, *_support(linker, cxx), _c_library(linker)), _compiler(linker))


def server_contents(linker: Linker, wheel: bool) -> Contents:
    """What is in the folder of an RPC server that `linker` made."""
    return Contents((_own(), *_tvm(wheel), *_support(linker, cxx=not wheel)), _compiler(linker))


def own_license() -> str:
    """The text of reconvene's licence."""
    return _installed("reconvene", "licenses/LICENSE")


def _own() -> Material:
    return Material(
        "reconvene",
        metadata.version("reconvene"),
        "Apache-2.0",
        "what calls the kernels, and what is said of them",
        package=True,
    )


def _tvm(wheel: bool) -> tuple[Material, ...]:
    """TVM's runtime: its libraries as they are distributed, or those of its sources that a program needs."""
    what = "the runtime, as its wheel has it" if wheel else "the runtime, from its sources"
    texts = [_text("tvm/LICENSE", "apache-tvm")]
    traces: tuple[Material, ...] = ()
    if wheel:
        # The program's part has neither: see runtime_library.
        texts.append(_text("tvm/licenses/LICENSE.builtin_fp16.txt", "apache-tvm"))
        # Its licence lies without the copyright in a file; the head of its header has both.
        text = _text("tvm_ffi/3rdparty/libbacktrace/backtrace.h", "apache-tvm-ffi").partition("*/")[0].strip("/* ")
        traces = (Material("libbacktrace", None, "BSD-3-Clause", "traces of errors, in libtvm_ffi.so", (text,)),)
    runtime = Material(
        "apache-tvm",
        metadata.version("apache-tvm"),
        "Apache-2.0",
        what,
        tuple(texts),
        _text("tvm/NOTICE", "apache-tvm"),
        package=True,
    )
    interface = Material(
        "apache-tvm-ffi",
        metadata.version("apache-tvm-ffi"),
        "Apache-2.0",
        "the runtime's interface, with the header of DLPack",
        (_installed("apache-tvm-ffi", "licenses/LICENSE"),),
        _installed("apache-tvm-ffi", "licenses/NOTICE"),
        package=True,
    )
    return (runtime, interface, *traces)


def _support(linker: Linker, cxx: bool = False) -> tuple[Material, ...]:
    """What a compiler adds of its own: helpers of its code and, with `cxx`, C++'s library, linked into the program."""
    if linker.kind == "zig":
        version, folder = metadata.version("ziglang"), "ziglang"
        found = [
            Material("zig-compiler-rt", version, "MIT", "the compiler's helpers", (_text(f"{folder}/LICENSE", folder),))
        ]
        if cxx:
            text = _text(f"{folder}/lib/libcxx/LICENSE.TXT", folder)
            found += [
                Material(name, version, "Apache-2.0 WITH LLVM-exception", "C++'s library, of LLVM", (text,))
                for name in ("libc++", "libc++abi", "libunwind")
            ]
        return tuple(found)
    if linker.kind == "clang":
        return ()
    version = _said(linker, "-dumpfullversion") or _said(linker, "-dumpversion")
    # Its exception leaves the choice of terms to whoever compiled a program: no text has to go with that.
    license = "GPL-3.0-or-later WITH GCC-exception-3.1"
    helpers = Material("libgcc", version, license, "the compiler's helpers")
    return (helpers, Material("libstdc++", version, license, "C++'s library")) if cxx else (helpers,)


def _c_library(linker: Linker) -> Material:
    """The C library that `linker` puts into a program that brings its own."""
    what = "the C library"
    if linker.kind == "zig":
        return Material(
            "musl", metadata.version("ziglang"), "MIT", what, (_text("ziglang/lib/libc/musl/COPYRIGHT", "ziglang"),)
        )
    defined = dict(re.findall(r"#define (__GLIBC__|__GLIBC_MINOR__|_NEWLIB_VERSION) \"?([\d.]+)", _macros(linker)))
    if "__GLIBC__" in defined:
        version = f"{defined['__GLIBC__']}.{defined['__GLIBC_MINOR__']}"
        return Material("glibc", version, "LGPL-2.1-or-later", what, (_kept("lgpl-2.1"), _kept("glibc")))
    if "_NEWLIB_VERSION" in defined:
        return Material("newlib", defined["_NEWLIB_VERSION"], None, what, (_kept("newlib"),))
    return Material("libc", None, None, f"{what} of '{linker.command[0]}': see what it comes with")


def _compiler(linker: Linker) -> Compiler:
    if linker.kind == "zig":
        return Compiler("ziglang", metadata.version("ziglang"), linker.found)
    described = _said(linker, "--version").partition("\n")[0]
    return Compiler(linker.kind, _said(linker, "-dumpfullversion") or _said(linker, "-dumpversion"), described)


def _macros(linker: Linker) -> str:
    """What the C library's headers define."""
    return _said(linker, "-E", "-dM", "-x", "c", "-", given="#include <stdlib.h>\n")


def _said(linker: Linker, *options: str, given: str = "") -> str:
    command = [*linker.command, *options]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False).stdout.strip()


def _text(path: str, distribution: str) -> str:
    """A file that a distribution installed beside its packages."""
    try:
        text = Path(str(metadata.distribution(distribution).locate_file(path))).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    return _required(text, path, distribution)


def _installed(distribution: str, name: str) -> str:
    """A file of a distribution's own metadata. In a checkout that is installed in place, what builds it leaves a second set,
    without licences, which Python finds first there.
    """
    texts = (found.read_text(name) for found in metadata.distributions(name=distribution))
    return _required(next(filter(None, texts), ""), name, distribution)


def _required(text: str, name: str, distribution: str) -> str:
    if not text:
        raise InputError(
            f"the installed {distribution} lacks '{name}', which must go with what is made of it; install it again"
        )
    return text


def _kept(name: str) -> str:
    return resources.files(__package__).joinpath("licenses", f"{name}.txt").read_text(encoding="utf-8")

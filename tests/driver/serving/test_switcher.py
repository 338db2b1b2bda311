"""Exchanging variants while requests run, memory that comes back, and every fault of the next variant."""

from __future__ import annotations

import dataclasses
import gc
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from reconvene.backends.compile import compile
from reconvene.driver.portfolio.manifest import Portfolio, Variant, file_sums, open_portfolio, write_manifest
from reconvene.driver.serving.memory import release_memory
from reconvene.driver.serving.switcher import Switcher
from reconvene.frontend.base.errors import InputError
from tests.support.bundles import edit
from tests.support.portfolios import INPUTS, WIDTHS, network

X = INPUTS[0].numpy()
EXPECTED = {name: network(width)(*INPUTS).detach().numpy() for name, width in WIDTHS.items()}


@pytest.fixture
def portfolio(original: Portfolio, tmp_path: Path) -> Portfolio:
    """A copy to spoil."""
    return open_portfolio(shutil.copytree(original.folder, tmp_path / "tiny"))


def answered(switcher: Switcher) -> str:
    """The variant that answers one request, whose outputs are compared with PyTorch's."""
    with switcher.lease() as resident:
        name = resident.variant.name
        np.testing.assert_allclose(resident.run([X])[0], EXPECTED[name], atol=1e-5)
    return name


def test_variants_take_turns(portfolio: Portfolio) -> None:
    changes: list[str] = []
    switcher = Switcher(portfolio, changed=changes.append)
    assert switcher.active is None
    assert [switch.error for switch in switcher.start(["middle", "large"])] == [None]
    for name in ("small", "large", "large", "middle"):
        before = switcher.active
        switch = switcher.switch(name, "a test").result()
        assert (switch.wanted, switch.before, switch.why, switch.error) == (name, before, "a test", None)
        assert answered(switcher) == switcher.active == name
    assert changes == ["middle", "small", "large", "middle"]
    assert switch.load_ms > 0 and switch.warm_ms > 0
    switcher.close()
    assert switcher.active is None


def test_no_request_is_lost_or_mixed_up(portfolio: Portfolio) -> None:
    """Requests of one thread run while another one switches all the time."""
    switcher = Switcher(portfolio)
    switcher.start(["large"])
    stop, seen = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            seen.append(answered(switcher))

    thread = threading.Thread(target=ask)
    thread.start()
    switches = [switcher.switch(name, "") for _ in range(10) for name in WIDTHS]
    assert all(switch.result().error is None for switch in switches)
    stop.set()
    thread.join()
    assert set(seen) == set(WIDTHS)
    switcher.close()


def test_the_old_variant_stays_until_its_last_request_is_done(portfolio: Portfolio) -> None:
    switcher = Switcher(portfolio)
    switcher.start(["large"])
    with switcher.lease() as old:
        future = switcher.switch("small", "")
        while switcher.active != "small":
            assert not future.done()
        assert answered(switcher) == "small"
        # It was replaced, and still answers for whoever began with it.
        np.testing.assert_allclose(old.run([X])[0], EXPECTED["large"], atol=1e-5)
        assert not future.done()
        assert mapped(portfolio, "large")
    assert future.result().error is None
    assert not mapped(portfolio, "large")
    switcher.close()
    assert not mapped(portfolio, "small")


def mapped(portfolio: Portfolio, name: str) -> bool:
    return str(portfolio.folder / "variants" / name) in Path("/proc/self/maps").read_text()


def resident_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Portfolio:
    """Variants of 48 MiB and of next to nothing, which take and give the same."""
    folder = tmp_path_factory.mktemp("portfolios") / "heavy"
    inputs = (torch.ones(1, 3000),)
    variants = []
    for name, width in (("heavy", 4000), ("light", 8)):
        built = compile(nn.Sequential(nn.Linear(3000, width), nn.Linear(width, 4)).eval(), inputs)
        (folder / "variants" / name).mkdir(parents=True)
        built.export(folder / "variants" / name / "host")
        variants.append(variant(name, width, folder))
    portfolio = Portfolio(folder, "heavy", built.inputs, built.outputs, tuple(variants))
    write_manifest(portfolio, folder)
    return portfolio


def variant(name: str, width: int, folder: Path) -> Variant:
    count = 3004 * width
    return Variant(name, None, count, count, 4 * count, count, {}, 4 * count, file_sums(folder, name))


def test_memory_comes_back(heavy: Portfolio) -> None:
    switcher = Switcher(heavy)
    switcher.start(["light"])
    switcher.switch("heavy", "").result()
    switcher.switch("light", "").result()
    # What compiling the portfolio left behind must not go in the middle of the measurement.
    gc.collect()
    release_memory()
    before = resident_bytes()
    for _ in range(3):
        switcher.switch("heavy", "").result()
        assert resident_bytes() - before > 40 << 20
        switcher.switch("light", "").result()
        assert resident_bytes() - before < 8 << 20
    switcher.close()


def test_too_little_memory_is_known_beforehand(heavy: Portfolio) -> None:
    switcher = Switcher(heavy, room=lambda: 40 << 20)
    switcher.start(["light"])
    switch = switcher.switch("heavy", "").result()
    assert switch.error == "variant 'heavy' needs 45 MiB and 40 MiB are free; free some, or choose a smaller variant"
    assert switcher.active == "light"
    switcher.close()


LIMITED = """
import json, resource, sys
import numpy as np
from reconvene.driver.portfolio.manifest import open_portfolio
from reconvene.driver.serving.memory import release_memory
from reconvene.driver.serving.switcher import Switcher

def size():
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1])

switcher = Switcher(open_portfolio(sys.argv[1]))
switcher.start(["light"])
x, found = np.ones((1, 3000), "float32"), []
with switcher.lease() as resident:
    expected = resident.run([x])[0].copy()
for more in (1 << 20, 20 << 20, 40 << 20):
    resource.setrlimit(resource.RLIMIT_AS, (size() + more, resource.RLIM_INFINITY))
    found.append(switcher.switch("heavy", "").result().error)
    with switcher.lease() as resident:
        assert np.array_equal(resident.run([x])[0], expected)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
found.append(switcher.switch("heavy", "").result().error)
switcher.close()
print(json.dumps(found))
"""


def test_out_of_memory_while_loading(heavy: Portfolio, tmp_path: Path) -> None:
    """A real limit of the address space, below what the library and its mapped weights need."""
    (tmp_path / "limited.py").write_text(LIMITED)
    call = [sys.executable, "-W", "ignore", str(tmp_path / "limited.py"), str(heavy.folder)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    message = "variant 'heavy' does not fit into memory; free some, or choose a smaller variant"
    assert json.loads(done.stdout) == [message, message, message, None]


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def relisted(portfolio: Portfolio) -> None:
    """Lists the files of ``small`` as they are now, so that only their content can be wrong."""
    small = dataclasses.replace(portfolio.variant("small"), files=file_sums(portfolio.folder, "small"))
    write_manifest(dataclasses.replace(portfolio, variants=(*portfolio.variants[:2], small)), portfolio.folder)


def other_shape(portfolio: Portfolio) -> None:
    """A whole and well-listed bundle of a network that takes another image."""
    inputs = (torch.randn(1, 3, 9, 9),)
    compile(network(8), inputs).export(portfolio.folder / "variants/small/host")
    relisted(portfolio)


def other_manifest(portfolio: Portfolio) -> None:
    """A bundle whose manifest says less than the truth of its library: only the warming run can see that."""
    place = portfolio.folder / "variants/small/host"
    compile(network(8), (torch.randn(1, 3, 10, 10),)).export(place)
    specs = json.loads((portfolio.folder / "variants/large/host/manifest.json").read_text())
    edit(place, lambda values: values.update(inputs=specs["inputs"], outputs=specs["outputs"]))
    relisted(portfolio)


def no_library(portfolio: Portfolio) -> None:
    place = portfolio.folder / "variants/small/host"
    (place / "model.so").write_bytes(b"\x7fELF" + bytes(3000))
    sums = file_sums(portfolio.folder, "small")["variants/small/host/model.so"]
    edit(place, lambda values: values["files"].update({"model.so": dataclasses.asdict(sums)}), "sums")
    relisted(portfolio)


FAULTS: list[tuple[Callable[[Portfolio], object], str]] = [
    (lambda p: shutil.rmtree(p.folder / "variants/small"), "lacks 'variants/small/host/manifest.json'"),
    (lambda p: (p.folder / "variants/small/host/model.so").unlink(), "lacks 'model.so'"),
    (lambda p: (p.folder / "variants/small/host/model.so").write_bytes(b"\x7fELF"), "has 4 bytes instead of"),
    (lambda p: spoil(p.folder / "variants/small/host/model.so"), "does not have its checksum"),
    (lambda p: spoil(p.folder / "variants/small/host/manifest.json"), "does not have its checksum"),
    (other_shape, "has the inputs input .float32 1x3x9x9., the portfolio 'tiny' input .float32 1x3x8x8."),
    (other_manifest, "variant 'small'"),
    (no_library, "made for another manifest"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_a_broken_variant_changes_nothing(
    portfolio: Portfolio, fault: Callable[[Portfolio], object], message: str
) -> None:
    fault(portfolio)
    switcher = Switcher(open_portfolio(portfolio.folder, files=False))
    switcher.start(["large"])
    for _ in range(2):
        switch = switcher.switch("small", "").result()
        assert switch.error is not None and "\n" not in switch.error
        assert re.search(message, switch.error), switch.error
        assert switcher.active == answered(switcher) == "large"
    assert not mapped(portfolio, "small")
    assert switcher.switch("middle", "").result().error is None
    assert answered(switcher) == "middle"
    switcher.close()


def test_an_unknown_variant_changes_nothing(portfolio: Portfolio) -> None:
    switcher = Switcher(portfolio)
    switcher.start(["large"])
    assert "has no variant '../large'" in str(switcher.switch("../large", "").result().error)
    assert answered(switcher) == "large"
    switcher.close()


def test_start_takes_the_first_that_works(portfolio: Portfolio) -> None:
    (portfolio.folder / "variants/small/host/model.so").unlink()
    switcher = Switcher(portfolio)
    tried = switcher.start(["small", "middle", "large"])
    assert [switch.error is None for switch in tried] == [False, True]
    assert switcher.active == "middle"
    switcher.close()
    nothing = Switcher(portfolio)
    with pytest.raises(InputError, match=r"no variant can be served: .* lacks 'model.so'"):
        nothing.start(["small"])
    nothing.close()

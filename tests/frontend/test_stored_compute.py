"""What a `.pt2` file says of the dense network that its program was made of."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.program_file import read_program, save_program
from reconvene.frontend.stored_compute import Compute

IMAGE = (torch.randn(2, 3, 8, 8),)


@pytest.fixture(scope="module")
def small() -> Any:
    return capture(nn.Conv2d(3, 4, 3), IMAGE)


def test_the_dense_network_s_compute_travels_with_the_program(tmp_path: Path, small: Any) -> None:
    path = tmp_path / "small.pt2"
    save_program(small, IMAGE, path)
    assert read_program(path).compute is None
    save_program(small, IMAGE, path, compute=Compute(300, 100))
    stored = read_program(path)
    assert stored.compute == Compute(dense_macs=300, macs=100) and stored.certificate is None


@pytest.mark.parametrize(
    "note",
    [{"dense_macs": 3}, {"dense_macs": 3, "macs": 0}, {"dense_macs": True, "macs": 1}, {"dense_macs": 3, "macs": 1.5}],
)
def test_a_compute_that_makes_no_sense_is_one_line(tmp_path: Path, small: Any, note: dict[str, Any]) -> None:
    path, spoilt = tmp_path / "small.pt2", tmp_path / "spoilt.pt2"
    save_program(small, IMAGE, path, compute=Compute(300, 100))
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(spoilt, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("extra/reconvene_compute.json"):
                data = json.dumps({**json.loads(data), "compute": note}).encode()
            target.writestr(name, data)
    with pytest.raises(InputError, match=r"cannot read the compute in .*spoilt\.pt2.*the file is damaged") as caught:
        _ = read_program(spoilt).compute
    assert "\n" not in str(caught.value)

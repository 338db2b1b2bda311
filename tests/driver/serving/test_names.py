"""A model that takes a dict and gives nested containers, behind the protocol: tensors have the model's names there."""

from __future__ import annotations

import asyncio
import collections
from pathlib import Path

import httpx2 as httpx
import numpy as np
import torch
from torch import Tensor, nn

from reconvene.driver.portfolio.build import Options, build_portfolio
from reconvene.driver.portfolio.sources import pruned_sources
from reconvene.driver.serving.app import make_app
from reconvene.driver.serving.service import Service, Settings
from reconvene.frontend.capture import capture

Boxes = collections.namedtuple("Boxes", "box label")


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, object]:
        y = self.out(self.hidden(batch["image"]).relu()) * batch["scale"]
        return {"logits": y, "found": Boxes(y + 1, [y.argmax(-1)]), "nothing": None}


def test_names_of_the_protocol(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Detector().eval()
    given = {"image": torch.randn(2, 8), "scale": torch.rand(2, 1)}
    sources = pruned_sources(capture(model, (given,)), (given,), (0, 0.5), "magnitude")
    portfolio = build_portfolio(sources, tmp_path / "p", "detector", Options(repeat=1, batch=2))
    service = Service(portfolio, Settings(state=tmp_path / "state.json", variant="dense"), lambda line: None)
    service.load()
    entries = [
        {"name": f"batch.{key}", "shape": list(value.shape), "datatype": "FP32", "data": value.ravel().tolist()}
        for key, value in reversed(given.items())
    ]

    async def talk() -> None:
        transport = httpx.ASGITransport(app=make_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            service.open()
            described = (await client.get("/v2/models/detector")).json()
            assert [entry["name"] for entry in described["inputs"]] == ["batch.image", "batch.scale"]
            assert [entry["name"] for entry in described["outputs"]] == ["logits", "found.box", "found.label.0"]
            answer = (await client.post("/v2/models/detector/infer", json={"inputs": entries})).json()
            found = {entry["name"]: np.array(entry["data"]).reshape(entry["shape"]) for entry in answer["outputs"]}
            wanted = model(given)
            np.testing.assert_allclose(found["logits"], wanted["logits"].detach(), atol=1e-5)
            np.testing.assert_allclose(found["found.box"], wanted["found"].box.detach(), atol=1e-5)
            asked = {"inputs": entries, "outputs": [{"name": "found.label.0"}]}
            (only,) = (await client.post("/v2/models/detector/infer", json=asked)).json()["outputs"]
            assert (only["name"], only["datatype"]) == ("found.label.0", "INT64")
        await service.close()

    asyncio.run(talk())

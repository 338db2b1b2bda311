"""A real server process beside existing clients: the protocol, variants that change, metrics."""

from __future__ import annotations

import asyncio
import json
import time

import httpx2 as httpx
import numpy as np
import pytest
import tritonclient.http as triton
from prometheus_client.parser import text_string_to_metric_families

from tests.support.portfolios import WIDTHS

from .servers import JSON_REQUEST, Server, X, check, healthy


@pytest.mark.parametrize("binary", [True, False])
def test_an_existing_client(server: Server, binary: bool) -> None:
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "large") and not client.is_model_ready("tiny", "small")
    assert client.get_server_metadata()["name"] == "reconvene"
    described = client.get_model_metadata("tiny")
    assert described["versions"] == ["large", "middle", "small"]
    assert described["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [1, 3, 8, 8]}]
    given = triton.InferInput("input", [1, 3, 8, 8], "FP32")
    given.set_data_from_numpy(X, binary_data=binary)
    asked = [triton.InferRequestedOutput("output0", binary_data=binary)]
    for name in ("middle", "small", "large"):
        client.load_model("tiny", config=json.dumps({"version_policy": {"specific": {"versions": [name]}}}))
        states = {entry["version"]: entry["state"] for entry in client.get_model_repository_index()}
        assert states == {variant: "READY" if variant == name else "UNAVAILABLE" for variant in WIDTHS}
        answer = client.infer("tiny", [given], outputs=asked, request_id="r1", model_version=name)
        head = answer.get_response()
        assert (head["model_name"], head["model_version"], head["id"]) == ("tiny", name, "r1")
        check(name, answer.as_numpy("output0"))
    check_statistics(client, described)
    with pytest.raises(triton.InferenceServerException, match="variant 'small' is not loaded; 'large' is"):
        client.infer("tiny", [given], model_version="small")
    with pytest.raises(triton.InferenceServerException, match="has no variant 'none'"):
        client.load_model("tiny", config=json.dumps({"version_policy": {"specific": {"versions": ["none"]}}}))
    client.close()


def check_statistics(client: triton.InferenceServerClient, described: dict) -> None:
    """The client's calls for the configuration and the statistics, of all versions and of one."""
    config = client.get_model_config("tiny")
    assert (config["name"], config["max_batch_size"], config["platform"]) == ("tiny", 0, described["platform"])
    assert config["input"] == [{"name": "input", "data_type": "TYPE_FP32", "dims": [1, 3, 8, 8]}]
    assert [entry["name"] for entry in config["output"]] == [entry["name"] for entry in described["outputs"]]
    assert config["version_policy"] == {"specific": {"versions": ["large", "middle", "small"]}}
    assert client.get_model_config("tiny", "small")["version_policy"] == {"specific": {"versions": ["small"]}}
    found = {entry["version"]: entry for entry in client.get_inference_statistics()["model_stats"]}
    assert list(found) == ["large", "middle", "small"]
    for version, entry in found.items():
        assert client.get_inference_statistics("tiny", version)["model_stats"][0]["version"] == version
        times = entry["inference_stats"]
        assert entry["inference_count"] == times["success"]["count"] > 0
        assert 0 < times["compute_infer"]["ns"] + times["queue"]["ns"] <= times["success"]["ns"]
        assert abs(entry["last_inference"] / 1e3 - time.time()) < 3600
        assert entry["batch_stats"][0]["compute_infer"] == times["compute_infer"]
    assert client.get_inference_statistics("tiny")["model_stats"] == list(found.values())
    with pytest.raises(triton.InferenceServerException, match="has no version 'none'"):
        client.get_inference_statistics("tiny", "none")
    with pytest.raises(triton.InferenceServerException, match="there is no model 'other'"):
        client.get_model_config("other")


def test_refused_requests_are_counted(server: Server) -> None:
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    given = triton.InferInput("input", [1, 3, 8, 9], "FP32")
    given.set_data_from_numpy(np.zeros((1, 3, 8, 9), np.float32))

    def failures() -> int:
        stats = client.get_inference_statistics("tiny")["model_stats"]
        return sum(entry["inference_stats"]["fail"]["count"] for entry in stats)

    before = failures()
    with pytest.raises(triton.InferenceServerException, match="must be of shape"):
        client.infer("tiny", [given])
    assert failures() == before + 1
    client.close()


def test_requests_over_a_unix_socket_while_variants_change(server: Server) -> None:
    assert server.unix.stat().st_mode & 0o777 == 0o600

    async def exchange() -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(server.unix))
        seen: set[str] = set()
        async with httpx.AsyncClient(transport=transport, base_url="http://server", timeout=30) as client:

            async def ask() -> None:
                for _ in range(60):
                    answer = (await client.post("/v2/models/tiny/infer", json=JSON_REQUEST)).json()
                    check(answer["model_version"], np.array(answer["outputs"][0]["data"]))
                    seen.add(answer["model_version"])

            async def change() -> None:
                for name in ("middle", "small", "large") * 6:
                    wish = {"parameters": {"variant": name}}
                    assert (await client.post("/v2/repository/models/tiny/load", json=wish)).status_code == 200

            await asyncio.gather(*(ask() for _ in range(4)), change())
        assert seen == set(WIDTHS)

    asyncio.run(exchange())


def test_metrics_and_status(server: Server) -> None:
    server.load("small")
    server.load("large")
    healthy(server)
    with server.client() as client:
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        status = client.get("/status").json()
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert found["reconvene_requests_total", "200"] >= 1
    assert found["reconvene_request_seconds_count", "large"] >= 1
    assert found["reconvene_switches_total", "done", "small"] >= 1
    assert (found["reconvene_active_variant", "large"], found["reconvene_active_variant", "small"]) == (1, 0)
    assert found["reconvene_resident_bytes",] == 4 * (24 * 28 + 4 * 25)
    assert found["reconvene_queue_length",] == 0
    assert found["process_resident_memory_bytes",] > 1 << 20
    assert (status["portfolio"], status["active"], status["queue"]) == ("tiny", "large", 0)
    assert status["policy"] == "variants are chosen by hand"
    assert [switch["wanted"] for switch in status["switches"][-2:]] == ["small", "large"]

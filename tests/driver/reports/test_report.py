"""Reports say the same in JSON and on a page that needs no network."""

from __future__ import annotations

import dataclasses
import html.parser
import json

import pytest

from reconvene.driver.reports.figures import latency_figure, layer_figures
from reconvene.driver.reports.report import (
    SCHEMA,
    Fact,
    Latency,
    Report,
    asked,
    make_report,
    report_page,
    reports_to_json,
    speeds,
)
from tests.driver.records import AFTER, BEFORE, compaction, latency


@pytest.fixture
def report() -> Report:
    made = make_report(compaction(), "VGG <16>", {"method": "magnitude", "sparsity": 0.5, "ignore": ["fc.*"]})
    return dataclasses.replace(made, facts=(Fact("Top-1", "18/20", "3/20"),), notes=("mind this",)).with_latency(
        latency()
    )


class Links(html.parser.HTMLParser):
    """Everything a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attributes if name in ("src", "href") and value]


def test_json_has_a_schema_and_every_field(report: Report) -> None:
    data = json.loads(report.to_json())
    assert data["schema"] == SCHEMA == "reconvene.report/1"
    assert data["before"] == dataclasses.asdict(BEFORE) and data["after"] == dataclasses.asdict(AFTER)
    assert len(data["layers"]) == 13 and len(data["latency"]) == 6
    assert data["groups"][1]["reasons"][0] == "rounded to a multiple of 2"
    assert data["barriers"][0]["source"] == "model.py:12"
    assert data["certificate"]["max_relative"] == 3.2e-16
    assert set(data) == {"schema", *(field.name for field in dataclasses.fields(Report))} - {"pictures"}


def test_several_reports_in_one_json(report: Report) -> None:
    data = json.loads(reports_to_json([report, report], ["skipped"]))
    assert (data["schema"], len(data["reports"]), data["notes"]) == (SCHEMA, 2, ["skipped"])


def test_json_with_a_number_that_is_none_fails_rather_than_lies(report: Report) -> None:
    certificate = dataclasses.replace(report.certificate, max_relative=float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        dataclasses.replace(report, certificate=certificate).to_json()


def test_page_loads_nothing_and_shows_the_numbers(report: Report) -> None:
    page = report.to_html()
    links = Links()
    links.feed(page)
    assert links.found == []
    for text in ("14.7 M → 3.69 M", "−74.9 %", "3.23×", "3.2e-16", "model.py:12", "18/20", "mind this"):
        assert text in page


def test_page_escapes_what_comes_from_the_model(report: Report) -> None:
    page = report.to_html()
    assert "VGG &lt;16&gt;" in page and "VGG <16>" not in page
    assert "&lt;script&gt;" in page and "; <script>" not in page
    assert "&lt;b&gt;rounding" in page


def test_page_of_two_reports_holds_the_plot_script_once(report: Report) -> None:
    page = report_page([report, report], "both", ["skipped: something"])
    assert page.count("skipped: something") == 1
    assert len(page) < len(report.to_html()) * 1.2


def test_page_without_latency_layers_or_barriers() -> None:
    bare = dataclasses.replace(compaction(), layers=(), groups=(), barriers=(), refusals=(), seconds={})
    page = make_report(bare, "bare", {}).to_html()
    assert "every operator of this network has an exact rule" in page
    assert "Latency" not in page.split("<body>")[1]


def test_plots_hold_what_the_report_holds(report: Report) -> None:
    figures = dict(layer_figures(report.layers))
    dense, kept = figures["Channels kept by layer"].data
    assert list(dense.y) == [layer.channels_before for layer in report.layers]
    assert list(kept.y) == [layer.channels_after for layer in report.layers]
    figure = latency_figure(report.latency)
    assert figure is not None
    assert sorted(x for trace in figure.data for x in trace.x) == sorted(row.median_ms for row in report.latency)
    assert latency_figure(()) is None


def test_speeds_pair_dense_and_compacted(report: Report) -> None:
    assert [speed.engine for speed in speeds(report)] == ["reconvene", "tvm-default", "eager"]
    lonely = Latency("reconvene", "dense", 1.0, 1.0, 1.0, 30, 1, 1)
    assert speeds(report.with_latency([lonely])) == ()


def test_asked_sums_groups(report: Report) -> None:
    total = asked(report)
    assert (total.channels, total.asked, total.got) == (128, 64, 62)
    assert [group.name for group in total.refused] == ["features.3"]


def test_environment_names_versions(report: Report) -> None:
    assert report.environment["torch"].startswith("2.")
    assert {"python", "apache-tvm", "machine"} <= set(report.environment)

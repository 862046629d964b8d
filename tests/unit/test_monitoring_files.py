"""The alert rules and the board ask for metrics that a real node has, with labels that these metrics carry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from workers import a_worker

from dicom_node.cli.step_durations import BOUNDS_S, StepDurations
from dicom_node.duties import Duty
from dicom_node.intake.admission import LIMIT_REACHED
from dicom_node.intake.tally import IntakeTally
from dicom_node.web import metrics
from dicom_node.web.node_numbers import BacklogNumbers, ErasedNumbers, FeedNumbers, NodeNumbers, WorkerNumbers

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "config" / "monitoring"
SCRAPED = {"job", "instance"}
"""Labels that Prometheus adds to everything it reads."""


WORKER = a_worker("w", silent_s=1.0)


class BusyNode:
    """A node in which everything has happened once."""

    def numbers(self) -> NodeNumbers:
        steps, tally = StepDurations(), IntakeTally()
        steps.add("find ears", 2.0)
        tally.add_image("new")
        tally.add_rejection(LIMIT_REACHED.code)
        return NodeNumbers(
            version="1",
            database_ok=True,
            disk_free_bytes=1,
            disk_required_bytes=1,
            images=tally.images(),
            associations_open=1,
            rejections=tally.rejections(),
            feed=FeedNumbers(reading=True, taken=1, left_out=0, changes_behind=0, age_s=1.0),
            studies={"computed": 1},
            backlog=[BacklogNumbers(destination="pacs", state="waiting", count=1, oldest_s=1.0)],
            workers=[
                WorkerNumbers(worker_id="w", age_s=1.0, memory_bytes=1, model={"name": "m"}, steps=steps.as_json())
            ],
            step_bounds_s=BOUNDS_S,
            duties=[Duty(worker=WORKER, study_instance_uid="2.25.1")],
            commitments={("pacs", "not_committed"): 1},
            state_bytes={"spool": 1},
            erased=ErasedNumbers(images_of=1, studies=1, bytes=1),
            audit_waiting=1,
        )


class Parts:
    numbers = BusyNode()
    metrics_token = ""


@pytest.fixture(scope="module")
def series() -> dict[str, set[str]]:
    """Name of every sample of a scrape -> its labels."""
    app = FastAPI()
    app.include_router(metrics.router(Parts()))  # type: ignore[arg-type]  # the two fields that it reads
    with TestClient(app, client=("127.0.0.1", 1)) as client:
        text = client.get("/metrics").text
    found: dict[str, set[str]] = {"up": set()}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def board() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / "grafana-board.json").read_text(encoding="utf-8"))
    return content


def expressions() -> Iterator[Any]:
    for rule in rules():
        yield pytest.param(rule["expr"], id=rule["alert"])
    for panel in board()["panels"]:
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")


def parsed(text: str) -> Any:
    return promql.parse(text.replace("$instance", ".*"))


def selectors(node: Any) -> Iterator[Any]:
    """Every vector selector below a node of the syntax tree."""
    if isinstance(node, promql.VectorSelector):
        yield node
    for name in ("lhs", "rhs", "expr", "vector_selector", "param"):
        part = getattr(node, name, None)
        if part is not None:
            yield from selectors(part)
    for part in getattr(node, "args", None) or ():
        yield from selectors(part)


def groupings(node: Any) -> Iterator[str]:
    """Every label that an aggregation keeps."""
    if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
        yield from node.modifier.labels
    for name in ("lhs", "rhs", "expr"):
        part = getattr(node, name, None)
        if part is not None:
            yield from groupings(part)
    for part in getattr(node, "args", None) or ():
        yield from groupings(part)


@pytest.mark.parametrize("text", list(expressions()))
def test_an_expression_asks_for_metrics_that_exist_by_labels_that_they_have(
    text: str, series: dict[str, set[str]]
) -> None:
    tree = parsed(text)
    found = list(selectors(tree))
    assert found
    assert {one.name for one in found} <= series.keys()
    labels = SCRAPED.union(*(series[one.name] for one in found))
    matched = {matcher.name for one in found for matcher in one.matchers.matchers}
    assert matched <= labels
    assert set(groupings(tree)) <= labels


def test_the_check_itself_notices_a_metric_and_a_label_that_do_not_exist(series: dict[str, set[str]]) -> None:
    tree = parsed('sum by (colour) (rate(hydrops_cakes_total{taste="good"}[5m]))')
    (selector,) = selectors(tree)
    assert selector.name not in series
    assert [matcher.name for matcher in selector.matchers.matchers] == ["taste"]
    assert list(groupings(tree)) == ["colour"]


def test_every_alert_says_what_happened_and_what_to_do(series: dict[str, set[str]]) -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "action"}
        labels = SCRAPED.union(*(series[one.name] for one in selectors(parsed(rule["expr"]))))
        assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= labels
        assert f"`{rule['alert']}`" in page


def test_every_metric_of_the_node_is_explained_and_nothing_else(series: dict[str, set[str]]) -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    ours = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in series if name.startswith("hydrops_")}
    assert ours == set(re.findall(r"`(hydrops_[a-z_]+)`", page))


def test_the_panels_of_the_board_do_not_overlap_and_name_no_other_data_source() -> None:
    taken: dict[tuple[int, int], str] = {}
    content = board()
    assert len({panel["id"] for panel in content["panels"]}) == len(content["panels"])
    for panel in content["panels"]:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, "Grafana's grid has 24 columns"
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_prometheus_is_told_of_the_rules_that_are_there() -> None:
    content = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    assert all((FOLDER / name).is_file() for name in content["rule_files"])
    (job,) = content["scrape_configs"]
    assert job["job_name"] == "hydrops"
    assert {name for rule in rules() for name in re.findall(r'job="(\w+)"', rule["expr"])} == {"hydrops"}

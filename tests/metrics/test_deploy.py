"""What deploy/ has for Prometheus and Grafana: valid, and about metrics that exist."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import requests

from tests.support.pictures import make_png
from tests.support.programs import need
from tests.support.scrape import families
from tests.support.servers import ROOT, TOKEN

DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "flux.json").read_text())
# What Prometheus and Grafana add.
ADDED = {"instance", "job", "le"}


def queries():
    """Every query, with where it stands."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    rules = ALERTS.read_text()
    for expr in re.findall(r"expr: (?:>-\n)?((?:.+\n)+?)\s+(?:for|labels):", rules):
        yield "alerts", " ".join(expr.split())


def names_in(query):
    """Metrics by name, each with the labels that it is asked for by."""
    for name, _, labels in re.findall(r"\b((?:flux|process)_\w+)(\{([^}]*)\})?", query):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", labels))


@pytest.fixture(scope="module")
def known(fake_with_files, files):
    """Every sample's name that the two servers have, with its labels."""
    form = {"prompt": "a cat", "size": "64x64", "num_inference_steps": 1}
    requests.post(f"{fake_with_files.url}/process", data=form, timeout=10)
    requests.post(f"{files.url}/upload", files={"file": make_png()}, timeout=10)
    found = {}
    for family in [*families(fake_with_files.url), *families(files.url, TOKEN)]:
        # This machine has no GPU: declared, with no sample.
        found.setdefault(family.name, {"kind"})
        for sample in family.samples:
            found[sample.name] = set(sample.labels)
    return found


@pytest.mark.parametrize(("where", "query"), list(queries()))
def test_queries_are_about_metrics_that_exist(known, where, query):
    asked = list(names_in(query))
    assert asked or query.startswith("up"), query
    by = {
        label.strip()
        for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", query)
        for label in group.split(",")
    }
    for name, labels in asked:
        assert name in known, name
        assert labels <= known[name] | ADDED, query
    every = set().union(*(known[name] for name, _ in asked))
    assert by <= every | ADDED, query


def test_the_dashboard_and_the_alerts_look_at_every_metric(known):
    """Nothing is measured that nobody looks at."""
    asked = {name for _, query in queries() for name, _ in names_in(query)}
    stem = re.compile(r"_(bucket|sum|count|total)$")
    looked_at = {stem.sub("", name) for name in asked}
    for name in known:
        if name.startswith("flux_"):
            assert stem.sub("", name) in looked_at, name


@pytest.mark.parametrize("page", ["docs/metrics.md", "docs/ja/metrics.md"])
def test_every_metric_is_documented_with_its_labels(known, page):
    rows = re.findall(
        r"^\| `(flux_\w+)` \|(.*?)\|", (ROOT / page).read_text("utf-8"), re.M
    )
    said = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    ends = re.compile(r"_(bucket|sum|count)$")
    # A counter's family has no "_total", and no sample.
    names = [n for n in known if n.startswith("flux_") and f"{n}_total" not in known]
    assert said.keys() == {ends.sub("", name) for name in names}
    for name, labels in said.items():
        assert labels == known.get(f"{name}_count", known[name]), name


def test_alerts_are_valid_and_fire_when_they_should(tmp_path):
    promtool = need("promtool")
    config = DEPLOY / "prometheus" / "prometheus.yml"
    subprocess.run([promtool, "check", "config", str(config)], check=True)
    text = (ROOT / "tests" / "metrics" / "alerts_test.yml").read_text()
    (tmp_path / "test.yml").write_text(text.replace("ALERTS", str(ALERTS)))
    done = subprocess.run(
        [promtool, "test", "rules", str(tmp_path / "test.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Each alert has been seen to fire.
    fired = set(re.findall(r"alertname: (\w+)", text))
    assert fired == set(re.findall(r"alert: (\w+)", ALERTS.read_text()))


def test_the_dashboards_queries_are_valid(tmp_path):
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, (where, query) in enumerate(queries())
        if where != "alerts"
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    subprocess.run([need("promtool"), "check", "rules", str(path)], check=True)

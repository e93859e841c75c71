"""Alert rules, their runbook and the dashboard, by Prometheus' own tool; each metric in them is one that the agent has."""

import json
import pathlib
import re
import socket
import subprocess
import urllib.request

import pytest
from conftest import BINARY, ROOT, until

RULES = ROOT / "packaging/prometheus/penstock.rules.yml"
STORIES = ROOT / "packaging/prometheus/penstock.rules.test.yml"
DASHBOARD = ROOT / "packaging/grafana/penstock.json"
RUNBOOK = ROOT / "packaging/runbook.md"
# What an agent answers at /metrics.
SAMPLE = pathlib.Path(__file__).parent / "messages/metrics.txt"
# Prometheus makes these of each scrape, and of each alert.
PROMETHEUS_OWN = {"up", "ALERTS"}


def promtool(*words, **options):
    result = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, timeout=60, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def series(text):
    """The names of a metrics text's series, each with its labels' names."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, labels = re.match(r"([a-zA-Z_:][\w:]*)(\{.*\})? ", line).groups()
            found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels or ""))
    return found


def names(expression):
    """The metrics that an expression asks for, and the labels it picks them by."""
    bare = re.sub(r'"(\\.|[^"\\])*"', '""', expression)
    found = {}
    for name, picked in re.findall(r"\b((?:penstock|process)[\w:]*|up)\b\s*(?:\{([^}]*)\})?", bare):
        found.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", picked))
    return found


def panels():
    return json.loads(DASHBOARD.read_text())["panels"]


def queries():
    """Every query of the dashboard, with Grafana's variables replaced as Grafana does."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = [(f"{panel['title']} {target['refId']}", target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", [])]
    found += [(each["name"], each["expr"]) for each in dashboard["annotations"]["list"] if "expr" in each]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found.append((f"variable {variable['name']}", re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])[1]))
    for span in ("$__rate_interval", "$__interval", "$__range"):
        found = [(name, expression.replace(span, "5m")) for name, expression in found]
    return [(name, re.sub(r"\$(instance|input|stream|shard)\b", "(a|b)", expression)) for name, expression in found]


def alerts():
    """Name, expression and the text of each alert's annotations."""
    text = RULES.read_text()
    parts = re.split(r"^\s+- alert: (\w+)$", text, flags=re.M)[1:]
    return list(zip(parts[0::2], parts[1::2]))


def test_the_rules_are_good_and_each_alert_fires_when_it_should_and_only_then():
    assert "SUCCESS" in promtool("check", "rules", RULES)
    promtool("test", "rules", STORIES.name, cwd=STORIES.parent)
    stories = STORIES.read_text()
    never = [name for name, _ in alerts() if f'alertname="{name}"' not in stories]
    assert never == [], "each alert has a story in which it fires"


def test_a_story_that_expects_another_alert_fails(tmp_path):
    # The tool is asked, not trusted.
    (tmp_path / RULES.name).write_text(RULES.read_text())
    broken = tmp_path / "broken.yml"
    broken.write_text(STORIES.read_text().replace('{alertname="PenstockDown"}', '{alertname="PenstockSlow"}'))
    assert broken.read_text() != STORIES.read_text()
    assert subprocess.run(["promtool", "test", "rules", broken.name], cwd=tmp_path, capture_output=True, timeout=60).returncode != 0


def test_each_alert_says_how_grave_it_is_what_it_is_and_where_the_runbook_tells_what_to_do():
    headings = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), flags=re.M)
    assert len(alerts()) > 15
    for name, text in alerts():
        assert re.search(r"severity: (critical|warning)\b", text), name
        for word in ("summary", "description"):
            assert re.search(rf'^\s+{word}: ".{{10,}}"$', text, flags=re.M), (name, word)
        anchor = re.search(r'runbook_url: "\S+/runbook\.md#(\w+)"', text)[1]
        assert anchor in [each.lower() for each in headings], f"{name} has no entry in the runbook"
        assert name in RUNBOOK.read_text()
    told = [name.lower() for name, _ in alerts()]
    assert [each for each in headings if each.lower() not in told] == [], "an entry for no alert"
    for anchor in re.findall(r"\]\(#(\w+)\)", RUNBOOK.read_text()):
        assert anchor in [each.lower() for each in headings]


def test_the_dashboards_queries_are_queries(tmp_path, figure):
    rules = [f"      - {{record: 'query:{index}', expr: {json.dumps(expression)}}}" for index, (_, expression) in enumerate(queries())]
    file = tmp_path / "dashboard.rules.yml"
    file.write_text("groups:\n  - name: dashboard\n    rules:\n" + "\n".join(rules) + "\n")
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)
    assert not [expression for _, expression in queries() if "$" in expression], "a variable that nobody replaces"
    figure(f"{len(rules)} queries, {len(alerts())} alerts")


@pytest.mark.parametrize("where", ["rules", "dashboard"])
def test_only_metrics_and_labels_are_asked_for_that_an_agent_has(where):
    known = series(SAMPLE.read_text())
    # What the rules record themselves.
    recorded = set(re.findall(r"- record: (\S+)", RULES.read_text()))
    texts = queries() if where == "dashboard" else [(name, text.split("annotations:")[0]) for name, text in alerts()]
    if where == "rules":
        texts += [("recorded", text) for text in re.findall(r"- record: .*\n\s+expr: ((?:.*\n)(?:\s{10,}.*\n)*)", RULES.read_text())]
        assert recorded
    asked = set()
    for name, text in texts:
        for metric, labels in names(text).items():
            asked.add(metric)
            if metric in recorded or metric in PROMETHEUS_OWN:
                continue
            assert metric in known, f"{name}: {metric} is no metric of an agent"
            assert labels <= known[metric] | {"job", "instance"}, f"{name}: {metric} has no label {labels - known[metric]}"
    assert len(asked) > 20


def test_the_sample_of_metrics_is_one():
    with open(SAMPLE) as sample:
        promtool("check", "metrics", stdin=sample)


def test_the_dashboard_is_laid_out_and_takes_its_data_from_the_chosen_source():
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["schemaVersion"] >= 38, "Grafana 10"
    assert [each["name"] for each in dashboard["templating"]["list"]] == ["datasource", "instance", "input", "stream", "shard"]
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    taken = set()
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, f"{panel['title']} lies over another"
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["title"] and panel["targets"]
        assert all(target["datasource"] == panel["datasource"] and target["expr"] for target in panel["targets"])
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert [panel["title"] for panel in panels() if panel["type"] == "row"] == [
        "In short", "Collect: files", "Collect: sockets", "Aggregate, pace, batch", "Kinesis", "Shards", "Spool", "Accounts and loss", "Process",
    ]


@pytest.mark.skipif(b"/readyz" not in BINARY.read_bytes(), reason="this binary has no admin server")
def test_a_real_agent_has_each_metric_of_the_sample_with_its_labels(make_agent, local_kinesis, stream, logs, tmp_path, figure):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (logs / "app.log").write_text("a line that is read\n" * 1000)
    agent = make_agent(logs / "*.log", local_kinesis.url, stream, agent={"admin": f"127.0.0.1:{port}"})
    agent.inputs["syslog"] = {"type": "syslog", "listen": [f"unixgram://{tmp_path}/log.sock", f"unix://{tmp_path}/stream.sock"]}
    agent.start()

    def scrape():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
                text = answer.read().decode()
        except OSError:
            return None
        delivered = re.search(r'^penstock_input_delivered_records_total\{[^}]*input="app"[^}]*\} 1000$', text, flags=re.M)
        return text if delivered else None

    text = until(scrape, 20, "1,000 records in /metrics")
    file = tmp_path / "metrics"
    file.write_text(text)
    with open(file) as real:
        promtool("check", "metrics", stdin=real)
    # Only errors that have happened are there.
    has, wanted = series(text), {name: labels for name, labels in series(SAMPLE.read_text()).items() if name != "penstock_output_errors_total"}
    assert {name: sorted(labels) for name, labels in wanted.items() if not labels <= has.get(name, set()) or name not in has} == {}
    figure(f"{len(text)} bytes, {len(has)} names; of them not in the sample: {sorted(has.keys() - wanted.keys())}")

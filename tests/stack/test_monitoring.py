"""Alert rules are tested with promtool; dashboards and compose fit what they are made of."""

from __future__ import annotations

import re
import subprocess
import sys

import monitoring
import pytest
import yaml
from programs import program

PROMETHEUS = monitoring.COMPOSE / "prometheus"
GRAFANA = monitoring.COMPOSE / "grafana"


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        [program("promtool", "prometheus"), *arguments],
        cwd=PROMETHEUS,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout


def test_promtool_finds_no_fault_in_rules_and_configuration() -> None:
    assert f"{len(monitoring.alerts())} rules found" in promtool("check", "rules", "rules.yml")
    promtool("check", "config", "--syntax-only", "prometheus.yml")


def test_each_alert_fires_where_it_should_and_none_where_all_is_well() -> None:
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yml")
    tested = (PROMETHEUS / "rules_test.yml").read_text()
    for rule in monitoring.alerts():
        assert f'alertname="{rule["alert"]}"' in tested


def test_each_alert_leads_to_a_heading_of_the_page_that_says_what_to_do() -> None:
    page = (monitoring.COMPOSE.parent / "docs" / "monitoring.md").read_text()
    anchors = {
        re.sub(r"[^a-z0-9-]", "", name.lower().replace(" ", "-")) for name in re.findall(r"^#+ (.+)$", page, re.M)
    }
    for rule in monitoring.alerts():
        assert rule["annotations"]["see"].partition("docs/monitoring.md#")[2] in anchors, rule["alert"]
        assert f"`{rule['alert']}`" in page


@pytest.mark.parametrize("name", sorted(yaml.safe_load((GRAFANA / "dashboards.yml").read_text())))
def test_a_dashboards_file_is_what_its_description_makes(name: str) -> None:
    command = [sys.executable, "-c", f"import generate; print(generate.text({name!r}), end='')"]
    made = subprocess.run(command, cwd=GRAFANA, capture_output=True, text=True, check=True).stdout
    assert made == (GRAFANA / "dashboards" / f"{name}.json").read_text(), "python compose/grafana/generate.py"
    assert len(monitoring.dashboards()) == 4

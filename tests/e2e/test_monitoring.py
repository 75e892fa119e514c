"""What Prometheus finds and scrapes of a live platform has every metric that a dashboard or an alert rule names."""

from __future__ import annotations

import re

import httpx
import monitoring
import pytest
from e2e.live import Platform, chat, until

pytestmark = pytest.mark.timeout(300)


def test_every_metric_that_a_dashboard_or_rule_names_is_in_a_live_scrape(platform: Platform) -> None:
    platform.ended(platform.submit([chat("one", "hi"), chat("two", "no [[status 400]]")]).id)
    token = {"authorization": f"Bearer {(platform.data / 'metrics-token').read_text().strip()}"}

    def scrape(role: str) -> str:
        targets = httpx.get(f"{platform.url}/metrics/targets", headers=token, trust_env=False).raise_for_status().json()
        labels, at = next((one["labels"], one["targets"][0]) for one in targets if one["labels"]["role"] == role)
        url = f"{labels['__scheme__']}://{at}{labels['__metrics_path__']}"
        return httpx.get(url, headers=token, trust_env=False).raise_for_status().text

    counted = 'penstock_batches_ended_total{kind="batch",lane="standard",state="completed"} 0.0'
    until(lambda: counted not in scrape("api"), "a keeper has counted the batch")
    api, worker = scrape("api"), scrape("worker")
    assert monitoring.named() <= monitoring.told(api) | monitoring.told(worker)
    both = monitoring.told(api) & monitoring.told(worker)
    assert not {name for name in both if name.startswith("penstock_")}, "a name is one thing, in one place"
    lines = r'^penstock_lines_total\{lane="standard",model="tiny",outcome="(answered|failed)"\} ([\d.]+)$'
    assert dict(re.findall(lines, worker, re.MULTILINE)).keys() == {"answered", "failed"}
    assert 'penstock_line_errors_total{code="status_400",model="tiny"}' in worker
    assert re.search(r'^vllm:num_requests_running\{worker="[0-9a-f]{8}"', worker, re.MULTILINE)
    for page in (api, worker):
        assert not re.findall(r"^# HELP (penstock_\S+) *$", page, re.MULTILINE), "each says what it is"

"""What dashboards and alert rules ask Prometheus: their queries, and the metrics that those name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import yaml

COMPOSE: Final = Path(__file__).parents[1] / "compose"
_METRIC: Final = re.compile(r"\b(?:penstock_|vllm:)[a-z0-9_]+")


def alerts() -> list[dict[str, Any]]:
    """Every alert rule."""
    groups = yaml.safe_load((COMPOSE / "prometheus" / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboards() -> dict[str, dict[str, Any]]:
    """Every dashboard, by the name of its file."""
    return {file.stem: json.loads(file.read_text()) for file in (COMPOSE / "grafana" / "dashboards").glob("*.json")}


def queries() -> list[str]:
    """Every query of a rule or dashboard."""
    panels = [panel for one in dashboards().values() for panel in one["panels"]]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return asked + [rule["expr"] for rule in alerts()]


def named() -> set[str]:
    """Every metric that they name, as a page has it in its TYPE rows."""
    return {metric for query in queries() for metric in _METRIC.findall(query)}


def told(page: str) -> set[str]:
    """Every name that Prometheus makes of a page: of its samples, and of what has a type and happened to nobody yet."""
    found = set(re.findall(r"^([a-z_:][a-z0-9_:]*)[{ ]", page, re.MULTILINE))
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", page, re.MULTILINE):
        found |= {f"{name}_{part}" for part in ("bucket", "count", "sum")} if kind == "histogram" else {name}
    return found

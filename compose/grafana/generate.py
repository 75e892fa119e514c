"""Grafana dashboards: `python compose/grafana/generate.py` writes `dashboards/*.json` of what `dashboards.yml` says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

HERE: Final = Path(__file__).parent
DASHBOARDS: Final[dict[str, Any]] = yaml.safe_load((HERE / "dashboards.yml").read_text())
_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
_WIDTH: Final = 24
_HEIGHT: Final = 8


def panels(name: str) -> Iterator[dict[str, Any]]:
    """The panels of one dashboard, headings among them, from its top."""
    id = top = 0
    for row in DASHBOARDS[name]["rows"]:
        if isinstance(row, str):
            id += 1
            yield {"id": id, "type": "row", "title": row, "gridPos": {"x": 0, "y": top, "w": _WIDTH, "h": 1}}
            top += 1
            continue
        width = _WIDTH // len(row)
        for place, panel in enumerate(row):
            id += 1
            yield {
                "id": id,
                "type": "timeseries",
                "title": panel["title"],
                "description": panel.get("shows", ""),
                "datasource": _SOURCE,
                "gridPos": {"x": place * width, "y": top, "w": width, "h": _HEIGHT},
                "fieldConfig": {"defaults": {"unit": panel["unit"]}, "overrides": []},
                "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
                "targets": [
                    {"refId": chr(ord("A") + at), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
                    for at, (legend, query) in enumerate(panel["queries"].items())
                ],
            }
        top += _HEIGHT


def text(name: str) -> str:
    """One dashboard as Grafana reads it (schema 39), a panel a line."""
    whole = {
        "uid": f"penstock-{name}",
        "title": DASHBOARDS[name]["title"],
        "tags": ["penstock"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}]
        },
    }
    rows = ",\n".join(json.dumps(panel) for panel in panels(name))
    return f'{json.dumps(whole)[:-1]}, "panels": [\n{rows}\n]}}\n'


if __name__ == "__main__":
    for one in DASHBOARDS:
        (HERE / "dashboards" / f"{one}.json").write_text(text(one))

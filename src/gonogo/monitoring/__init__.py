"""What a Prometheus and a Grafana of the user's own need: the metrics as text, rules and a dashboard as data."""

from __future__ import annotations

from importlib import resources


def file_text(name: str) -> str:
    """`rules.yaml` or `dashboard.json`, as they come with gonogo."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")

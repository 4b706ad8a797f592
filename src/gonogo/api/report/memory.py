"""The memory section of the report: the plan as an addition, and planned beside measured. Pure."""

from __future__ import annotations

from typing import Any, Mapping

from gonogo.api.report.numbers import percent, size
from gonogo.words import Language, has_message, message

MEASURED = {
    "weights": "weights_bytes",
    "kv_cache": "kv_cache_bytes",
    "compute": "compute_bytes",
    "activation": "compute_bytes",
    "output": "output_bytes",
}
"""Which measured number belongs to which term of the plan; the runtime is only seen inside the resident set."""
RESIDENT = "resident_bytes"
Data = Mapping[str, Any]


def memory_view(data: Data, entry: Data, lang: Language) -> dict[str, Any] | None:
    """Rows of the addition with the measured numbers beside them; None when the model was not read.

    The resident set and what is available are of the host: they are not held against a plan of cards.
    """
    plan = data["memory_plan"]
    if plan is None:
        return None
    terms = plan["terms"]
    total = sum(term["size_bytes"] for term in terms)
    measured = data["measured"]
    replicas = len(entry.get("replicas", ())) or 1
    on_cards = bool((data.get("engine") or {}).get("cards"))
    available = None if on_cards else (data["host"] or {}).get("memory_available_bytes")
    return {
        "replicas": [one["replica"] for one in measured],
        "rows": [_row(term, index, total, measured, lang) for index, term in enumerate(terms)],
        "total": size(total),
        "resident": [_beside(one.get(RESIDENT), 0 if on_cards else total) for one in measured],
        "together": size(total * replicas),
        "together_label": message("report.memory.all", lang, replicas=replicas),
        "available": size(available),
    }


def _row(term: Data, index: int, total: int, measured: list[Data], lang: Language) -> dict[str, Any]:
    name = f"term.{term['name']}"
    field = MEASURED.get(str(term["name"]))
    return {
        "name": message(name, lang) if has_message(name) else term["name"],
        "operator": "+" if index else "",
        "planned": size(term["size_bytes"]),
        "percent": percent(term["size_bytes"], total),
        "shade": index % 6,
        "source": term["source"],
        "measured": [_printed(one, field, term["size_bytes"], lang) for one in measured],
    }


def _printed(measured: Data, field: str | None, planned: float, lang: Language) -> dict[str, str | None]:
    """What the engine printed of one term; of its cache also how many tokens it holds, where it said so."""
    found = _beside(measured.get(field) if field else None, planned)
    tokens = measured.get("kv_cache_tokens") if field == MEASURED["kv_cache"] else None
    if tokens is None:
        return found
    told = [found["off"], message("report.memory.tokens", lang, tokens=tokens)]
    return {**found, "off": " · ".join(one for one in told if one)}


def _beside(measured: float | None, planned: float) -> dict[str, str | None]:
    """A measured number and how far it is from the planned one."""
    if measured is None:
        return {"size": size(None), "off": None}
    if planned <= 0:
        return {"size": size(measured), "off": None}
    return {"size": size(measured), "off": f"{100 * (measured - planned) / planned:+.0f} %"}

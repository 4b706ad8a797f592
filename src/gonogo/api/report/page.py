"""Renders the report: control's JSON → one HTML file that needs nothing else. Pure but for reading its own template.

Every text from outside (a model's answer, a file name, Envoy's words) is escaped by the template engine, and the page
forbids scripts and all loading, so that a hostile answer stays a text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gonogo.api.report import numbers
from gonogo.api.report.checklist import advising, blocking, by_condition, counts, latest
from gonogo.api.report.facts import host_rows, model_rows, spec_rows
from gonogo.api.report.memory import memory_view
from gonogo.words import Language, finding_text, has_message, message
from gonogo.words.availability import measured_text
from gonogo.words.events import event_text

SIGNS = {"pass": "✓", "fail": "✗", "unknown": "?", "not_applicable": "–"}
Data = Mapping[str, Any]


def render(data: Data, lang: Language) -> str:
    """The HTML of one report. `data` is what `GET /v1/report` answers."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["t"] = lambda name, **values: message(name, lang, **values)
    style = (folder / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(style=style, **view(data, lang))


def view(data: Data, lang: Language) -> dict[str, Any]:
    """Everything that the template shows, in words and formatted numbers."""
    answers = latest(data["answers"])
    entry = _service(data)
    return {
        "lang": "zh-CN" if lang == "zh" else "en",
        "service": data["spec"]["service"],
        "endpoint": entry.get("endpoint") or data["status"]["endpoint"],
        "made": _made(data, lang),
        "banner": _banner(entry, answers, lang),
        "tiles": _tiles(data, entry, answers, lang),
        "conditions": [_condition(name, group, lang) for name, group in by_condition(answers)],
        "probes": [_probe(one) for one in answers if one["check"] == "answers_right" and "answer" in one["values"]],
        "memory": memory_view(data, entry, lang),
        "timing": _timing(data, lang),
        "availability": _availability(data, lang),
        "queue": _queue(data, lang),
        "replicas": [_replica(one, lang) for one in entry.get("replicas", ())],
        "processes": [
            (message(f"role.{role}", lang), ", ".join(map(str, pids)) or numbers.NOTHING)
            for role, pids in data["status"]["processes"].items()
        ],
        "facts": [
            (message("report.asked", lang), spec_rows(data["spec"], data.get("engine"), lang)),
            (message("report.model", lang), model_rows(data["model"], lang)),
            (message("report.host", lang), host_rows(data["host"], lang)),
        ],
        "events": [_event(one, lang) for one in reversed(data["events"])],
    }


def _service(data: Data) -> Data:
    name = data["spec"]["service"]
    return next((one for one in data["status"]["services"] if one["name"] == name), {})


def _made(data: Data, lang: Language) -> str:
    host = (data["host"] or {}).get("name") or "?"
    return message("report.made", lang, when=numbers.moment(data["generated_at"]), version=data["version"], host=host)


def _banner(entry: Data, answers: tuple[Data, ...], lang: Language) -> dict[str, Any]:
    """The one verdict: GO only for a proven revision with nothing that blocks."""
    wrong = blocking(answers)
    phase = str(entry.get("phase", "?"))
    name = entry.get("name", "?")
    advice = advising(answers)
    told_advice = None
    if advice:
        titles = ", ".join(_title(one, lang) for one in advice)
        told_advice = message("report.advice", lang, count=len(advice), titles=titles)
    if wrong:
        kind, sentence = "nogo", message("report.banner.nogo", lang, count=len(wrong))
    elif phase == "proven":
        kind, sentence = "go", message("report.banner.go", lang, service=name)
    else:
        told_phase = message(f"phase.{phase}", lang) if has_message(f"phase.{phase}") else phase
        kind, sentence = "open", message("report.banner.open", lang, service=name, phase=told_phase)
    return {
        "kind": kind,
        "word": message(f"report.{kind}", lang),
        "sentence": sentence,
        "advice": told_advice,
        "wrong": [_answer(one, lang) for one in wrong],
    }


def _tiles(data: Data, entry: Data, answers: tuple[Data, ...], lang: Language) -> list[tuple[str, str]]:
    found = counts(answers)
    asked = sum(found.values()) - found["not_applicable"]
    replicas = entry.get("replicas", ())
    ready = sum(1 for one in replicas if one["health"] == "ready")
    serving = entry.get("serving")
    return [
        (f"{found['pass']} / {asked}", message("report.tile.checks", lang)),
        (numbers.seconds(data["seconds_to_proven"]), message("report.tile.proven", lang)),
        (f"{ready} / {len(replicas)}", message("report.tile.replicas", lang)),
        (numbers.NOTHING if serving is None else str(serving), message("report.tile.revision", lang)),
    ]


def _condition(name: str, group: tuple[Data, ...], lang: Language) -> dict[str, Any]:
    found = counts(group)
    asked = sum(found.values()) - found["not_applicable"]
    if blocking(group):
        kind = "bad"
    else:
        kind = "advice" if advising(group) else "good"
    return {
        "id": name,
        "title": message(f"condition.{name}", lang),
        "kind": kind,
        "summary": message("report.all_passed", lang, **found, asked=asked),
        "answers": [_answer(one, lang) for one in group],
    }


def _answer(one: Data, lang: Language) -> dict[str, Any]:
    text = finding_text(one["reason"], one["values"], lang)
    wrong = one["verdict"] in ("fail", "unknown")
    return {
        "sign": SIGNS[one["verdict"]],
        "kind": one["verdict"] if one["blocks"] or not wrong else "advice",
        "verdict": message(f"report.verdict.{one['verdict']}", lang),
        "advises": wrong and not one["blocks"],
        "title": _title(one, lang),
        "reason": one["reason"],
        "seen": text.seen,
        "remedy": text.remedy if wrong else None,
        "subject": one["subject"],
        "stage": message(f"report.stage.{one['stage']}", lang),
        "at": numbers.clock(one["at"]).rpartition(" ")[2],
    }


def _title(one: Data, lang: Language) -> str:
    name = f"check.{one['check']}"
    title = message(name, lang) if has_message(name) else str(one["check"])
    probe = one["values"].get("probe")
    return f"{title}: {probe}" if probe else title


def _probe(one: Data) -> dict[str, Any]:
    values = one["values"]
    return {
        "kind": one["verdict"],
        "sign": SIGNS[one["verdict"]],
        "name": values.get("probe") or one["check"],
        "prompt": values.get("prompt", ""),
        "answer": values.get("answer", ""),
        "pattern": values.get("pattern", ""),
    }


def _timing(data: Data, lang: Language) -> dict[str, Any] | None:
    total = data["seconds_to_proven"]
    if total is None or not data["stages"]:
        return None
    stages = []
    for index, stage in enumerate(data["stages"]):
        name = f"stage.{str(stage['name']).replace(' ', '_')}"
        stages.append(
            {
                "name": message(name, lang) if has_message(name) else stage["name"],
                "seconds": numbers.seconds(stage["seconds"]),
                "percent": numbers.percent(stage["seconds"], total),
                "shade": index % 6,
            }
        )
    return {"total": message("report.timing.total", lang, seconds=total), "stages": stages}


def _availability(data: Data, lang: Language) -> list[tuple[str, str]]:
    """Window and what was measured over it; the service's own requests."""
    measured = (data["status"].get("availability") or {}).get(data["spec"]["service"]) or {}
    return [(name, measured_text(one, lang)) for name, one in measured.items()]


def _queue(data: Data, lang: Language) -> list[tuple[str, str]]:
    """Label and number; empty where the queue could not be read."""
    seen = data["status"].get("queue")
    if seen is None:
        return []
    counts = seen["counts"]
    rows = {
        "waiting": numbers.count(counts["queued"]),
        "oldest": numbers.seconds(seen["oldest_age_s"]),
        "running": numbers.count(counts["leased"]),
        **{name: numbers.count(counts[name]) for name in ("done", "failed", "cancelled", "dead")},
        "batches": numbers.count(seen["batches"]),
        "pace": f"{seen['ended_per_s']:,.1f}",
        "workers": numbers.count(seen["workers"]),
        **({"draining": message("tasks.draining", lang)} if seen["draining"] else {}),
    }
    return [(message(f"report.queue.{name}", lang), value) for name, value in rows.items()]


def _replica(one: Data, lang: Language) -> dict[str, str]:
    health = one["health"] or "unknown"
    return {
        "id": one["id"],
        "kind": {"ready": "pass", "starting": "unknown"}.get(health, "fail"),
        "health": message(f"health.{health}", lang),
        "address": f"{one['address']}:{one['port']}",
        "pid": numbers.NOTHING if one["pid"] is None else str(one["pid"]),
        "restarts": str(one["restarts"]),
    }


def _event(one: Data, lang: Language) -> dict[str, str]:
    return {
        "sequence": str(one["sequence"]),
        "at": numbers.clock(one["at"]),
        "text": event_text(one, lang),
        "kind": one["kind"],
        "actor": f"{one['actor']} · {one['principal']}" if one["principal"] != one["actor"] else one["actor"],
        "hash": str(one["hash"])[:12],
    }

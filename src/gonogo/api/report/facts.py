"""The facts of the report as rows of label and value: the host, the model, and what was asked for. Pure."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from gonogo.api.report.numbers import count, magnitude, size
from gonogo.words import Language, message

SHOWN_SETS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimddp", "i8mm", "bf16", "sve2")
"""Instruction sets that make inference faster on a processor, of those that it has."""
Row = tuple[str, str]
Facts = Mapping[str, Any]


def host_rows(host: Facts | None, lang: Language) -> tuple[Row, ...]:
    """What was seen of the machine; an empty tuple when it was not observed."""
    if host is None:
        return ()
    unseen = message("report.not_observed", lang)
    memory = {"available": size(host["memory_available_bytes"]), "total": size(host["memory_total_bytes"])}
    rows: list[tuple[str, object]] = [
        ("host", host["name"]),
        ("os", host["os_name"]),
        ("kernel", host["kernel"]),
        ("glibc", host.get("glibc")),
        ("python", host["python"]),
        ("cpu", host["cpu_model"] or host["machine"]),
        ("instruction_sets", _sets(host["instruction_sets"])),
        ("cores", host["cores"]),
        ("memory", message("fact.memory_value", lang, **memory)),
        ("accelerators", _accelerators(host["accelerators"])),
    ]
    if host.get("driver") is not None:
        driver = host["driver"]
        rows.append(("driver", " · CUDA ".join(one for one in (driver["version"], driver["cuda_version"]) if one)))
    if host.get("others"):
        rows.append(("others", ", ".join(f"{one['count']} × {one['name']}" for one in host["others"])))
    if host.get("tools") is not None:
        rows.append(("tools", _tools(host["tools"])))
    found = [(message(f"fact.{name}", lang), unseen if value is None else str(value)) for name, value in rows]
    for disk in host["disks"] or ():
        values = {"free": size(disk["free_bytes"]), "total": size(disk["total_bytes"])}
        found.append((message("fact.disk", lang, path=disk["path"]), message("fact.disk_value", lang, **values)))
    return (*found, *_installed(host["installed"] or (), lang))


def model_rows(model: Facts | None, lang: Language) -> tuple[Row, ...]:
    """What the model file says of itself."""
    if model is None:
        return ()
    template = model["chat_template"]
    rows: list[tuple[str, object]] = [
        ("file", model["path"] or model["asked"]),
        ("size", size(model["file_bytes"])),
        ("architecture", model["architecture"]),
        ("quantization", model["quantization"]),
        ("parameters", magnitude(model["parameters"])),
        ("layers", count(model["layers"])),
        ("trained_context", count(model["context_tokens"])),
        ("vocabulary", count(model["vocabulary"])),
        ("tensors", count(_tensors(model["tensors"]))),
        ("template", message("fact.present", lang, count=len(template)) if template else message("fact.absent", lang)),
    ]
    unseen = message("report.not_observed", lang)
    return tuple((message(f"fact.{name}", lang), unseen if value is None else str(value)) for name, value in rows)


def spec_rows(spec: Facts, engine: Facts | None, lang: Language) -> tuple[Row, ...]:
    """What was asked for, defaults included, and the engine that serves it."""
    gateway, expect, replicas = spec["gateway"], spec["expect"], spec["replicas"]
    span = message("fact.auto_replicas", lang)
    if replicas is not None:
        low, high = replicas["min"], replicas["max"]
        span = str(low) if low == high else f"{low} – {high}"
    rows = (
        ("service", spec["service"]),
        ("asked_model", spec["model"]),
        *_engine(engine, lang),
        ("asked_projector", spec["projector"] or "–"),
        ("asked_quantization", spec["quantization"]),
        ("asked_replicas", span),
        ("concurrency", count(expect["concurrent_requests"])),
        ("context", count(expect["context_tokens"])),
        ("listens", f"{gateway['address']}:{gateway['port']}"),
        ("hostnames", ", ".join(gateway["hostnames"]) or "–"),
        *_queue(spec["queue"]),
        ("probes", ", ".join(probe["name"] for probe in spec["probes"]) or "–"),
    )
    return tuple((message(f"fact.{name}", lang), str(value)) for name, value in rows)


def _queue(queue: Facts | None) -> tuple[Row, ...]:
    """Its server, where one is named; no password stands in a spec."""
    return () if queue is None or queue["url"] is None else (("queue", queue["url"]),)


def _engine(engine: Facts | None, lang: Language) -> tuple[Row, ...]:
    if engine is None:
        return ()
    named = ("engine", " ".join(one for one in (engine["name"], engine["version"]) if one))
    if engine["environment"] is None:
        return (named,)
    lock = engine["lock"] or message("report.not_observed", lang)
    told = message("fact.environment_value", lang, name=engine["environment"], lock=lock)
    return (named, ("environment", told))


def _accelerators(found: list[Facts] | None) -> str | None:
    if found is None:
        return None
    return ", ".join(f"{one['name']} ({size(one['memory_total_bytes'])})" for one in found) or "0"


def _sets(found: Sequence[str] | None) -> str | None:
    return None if found is None else " ".join(name for name in SHOWN_SETS if name in found) or "–"


def _tools(tools: Facts) -> str:
    """The container engine, the NVIDIA container toolkit, the CUDA toolkit and NCCL, where they are there."""
    engine = tools["container_engine"]
    told = [] if engine is None else [f"{engine['name']} {engine['server_version'] or engine['client_version'] or '?'}"]
    named = {"container_toolkit": "NVIDIA container toolkit", "cuda_toolkit": "nvcc", "nccl": "NCCL"}
    told += [f"{name} {tools[key]['version'] or '?'}" for key, name in named.items() if tools[key] is not None]
    return " · ".join(told) or "–"


def _installed(found: Sequence[Facts], lang: Language) -> tuple[Row, ...]:
    programs = [f"{one['name']} {one['version'] or '?'}" for one in found if one["wanted"] is None]
    locked = sum(1 for one in found if one["wanted"] is not None and one["wanted"] == one["version"])
    if not programs and not locked:
        return ()
    told = [*programs, message("fact.packages", lang, count=locked)] if locked else programs
    return ((message("fact.installed", lang), " · ".join(told)),)


def _tensors(found: Any) -> int | None:
    """Control sends their number; a list of them is counted."""
    return len(found) if isinstance(found, (list, tuple)) else found

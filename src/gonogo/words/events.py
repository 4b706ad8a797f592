"""One event of the audit log in words. Pure."""

from __future__ import annotations

from typing import Any, Mapping

from gonogo.words.catalogue import has_message, message
from gonogo.words.language import Language


def event_text(event: Mapping[str, Any], lang: Language) -> str:
    """The sentence for an event (as the API gives it); its kind and values where the catalogue has none for it."""
    detail = event.get("detail")
    values = {**(detail if isinstance(detail, Mapping) else {}), "service": event.get("service")}
    values["revision"] = event.get("revision")
    for name in (f"event.{event['kind']}.{values.get('action')}", f"event.{event['kind']}"):
        if has_message(name):
            return message(name, lang, **values)
    return f"{event['kind']} {detail}" if detail else str(event["kind"])

"""The sentences of a choice of releases: sides of a clash, what mends it, what was not observed; and of findings."""

from __future__ import annotations

from typing import Any

from gonogo.checks.finding import Finding
from gonogo.plan.environment import Choice, Clash
from gonogo.words.catalogue import Text, finding_text, message
from gonogo.words.language import Language


def choice_reason(engine: str, choice: Choice, lang: Language) -> tuple[str, dict[str, Any]]:
    """Why no release was chosen: a reason code and its values in the language."""
    if choice.clash is not None:
        return "VersionsClash", {"engine": engine, **_clash_values(choice.clash, lang)}
    unseen = "; ".join(message(f"env.unseen.{side.name}", lang, needs=side.needs) for side in choice.unseen)
    title = choice.would_be.title if choice.would_be is not None else engine
    version = choice.would_be.version if choice.would_be is not None else ""
    return "EngineNeedsUnseen", {"engine": title, "version": version, "unseen": unseen}


def environment_finding_text(finding: Finding, lang: Language) -> Text:
    """What was seen and what to do; a text that is data (`what_en`, `what_zh`) comes in the language."""
    values = {name: value for name, value in finding.values.items() if not name.startswith("what_")}
    return finding_text(finding.reason, {**values, "what": finding.values.get(f"what_{lang}")}, lang)


def _clash_values(clash: Clash, lang: Language) -> dict[str, Any]:
    sides = [
        message(f"env.side.{side.name}", lang, has=side.has, needs=side.needs, release=side.release, engine=clash.title)
        for side in clash.sides
    ]
    mends = [message(f"env.mend.{mend.kind}", lang, **mend.values) for mend in clash.mends]
    mend = message("env.and", lang).join(mends) or message("env.mend.none", lang)
    return {"sides": message("env.against", lang).join(sides), "mend": mend, "kinds": [one.name for one in clash.sides]}

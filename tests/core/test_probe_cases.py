"""Replies to each kind of probe, and what is made of them: tests/cases/probes. `--accept` rewrites the expected."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Mapping

import pytest
import yaml

from gonogo.checks import answers
from gonogo.checks.catalogue import CHECKS
from gonogo.checks.finding import Verdict
from gonogo.checks.screens import draw
from gonogo.facts.chat import parse_chat
from gonogo.facts.probe import ProbeFacts
from gonogo.spec import Spec
from gonogo.spec.recipe_probes import KINDS, Grounding, LargestImage, kind_of
from gonogo.words import finding_text
from tests.core import worlds

CASES = Path(__file__).parents[1] / "cases" / "probes"
FILES = sorted(CASES.glob("*.yaml"))
SENT_BYTES = 1_300_000


def load(path: Path) -> tuple[Spec, Mapping[str, Any]]:
    told = yaml.safe_load(path.read_text(encoding="utf-8"))
    probes = [told["probe"], *told.get("beside", ())]
    return Spec.model_validate_json(json.dumps({"service": "svc", "model": "m", "probes": probes})), told["replies"]


def body(reply: Mapping[str, Any]) -> bytes:
    """The body of this reply, as an engine sends it."""
    if "body" in reply:
        return str(reply["body"]).encode()
    if "error" in reply:
        return json.dumps({"error": reply["error"]}).encode()
    message = {name: value for name, value in reply.items() if name not in ("status", "seconds", "finish_reason")}
    choice = {"message": {"role": "assistant", **message}, "finish_reason": reply.get("finish_reason", "stop")}
    return json.dumps({"choices": [choice]}).encode()


def judged(spec: Spec, reply: Mapping[str, Any]) -> dict[str, Any]:
    """The one finding of the probe's check about this reply, in words."""
    revision = worlds.revision().model_copy(update={"spec": spec})
    (name, *_) = answers.names_of(spec.probes[0])
    error: str | None = None
    seen: answers.Seen = {}
    try:
        seen = look(spec, reply)
    except ValueError as problem:
        error = str(problem)
    fact = ProbeFacts(name=name, service="svc", revision=1, at=worlds.NOW, error=error, seen=seen)
    (check,) = [check for check in CHECKS if check.name == name.partition(":")[0]]
    findings = [one for one in check.ask(revision, worlds.world(probes=(fact,))) if one.values.get("probe")]
    (finding,) = findings
    assert finding.reason in check.reasons
    return {
        "reason": finding.reason,
        "verdict": finding.verdict.value,
        "seen": finding_text(finding.reason, finding.values, "en").seen,
    }


def look(spec: Spec, reply: Mapping[str, Any]) -> answers.Seen:
    probe = spec.probes[0]
    if not isinstance(probe, Grounding):
        told = parse_chat(reply.get("status", 200), body(reply), reply.get("seconds", 0.5))
        if isinstance(probe, LargestImage):
            return answers.image_seen(probe, SENT_BYTES, told)
        return answers.seen_of(probe, told, spec)
    picture = probe.pictures[0]
    screen = draw(picture, f"{probe.name}/0")
    at = {"px": screen.x, "py": screen.y, "x": 1000 * screen.x // 1080, "y": 1000 * screen.y // 2400}
    reply = {
        **reply,
        "content": re.sub(r"\{(\w+)([+-]\d+)?\}", lambda found: moved(at, found), reply.get("content", "")),
    }
    if "error" in reply:
        del reply["content"]
    told = parse_chat(reply.get("status", 200), body(reply), 0.5)
    return answers.grounding_seen(probe, picture, screen, told)


def moved(at: Mapping[str, int], found: re.Match[str]) -> str:
    return str(at[found[1]] + int(found[2] or 0))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_reply_gives_the_finding_that_is_expected_of_it(path: Path, pytestconfig: pytest.Config) -> None:
    spec, replies = load(path)
    seen = {name: judged(spec, reply) for name, reply in replies.items()}
    expected = path.with_suffix(".expected.json")
    if pytestconfig.getoption("--accept"):
        expected.write_text(json.dumps(seen, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert seen == json.loads(expected.read_text(encoding="utf-8"))


def test_every_kind_has_cases_and_every_reason_but_unknown_is_given_by_a_case() -> None:
    kinds = {kind_of(load(path)[0].probes[0]) for path in FILES}
    assert kinds == set(KINDS)
    given = {
        one["reason"] for path in FILES for one in json.loads(path.with_suffix(".expected.json").read_text()).values()
    }
    of_kinds = {reason for check in CHECKS if check.name in KINDS for reason in check.reasons}
    assert {reason for reason in of_kinds - given if not reason.endswith("Unknown")} == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_probe_of_the_spec_that_was_not_asked_is_unknown_and_blocks(path: Path) -> None:
    spec, _ = load(path)
    revision = worlds.revision().model_copy(update={"spec": spec})
    name = answers.names_of(spec.probes[0])[0].partition(":")[0]
    (check,) = [check for check in CHECKS if check.name == name]
    findings = list(check.ask(revision, worlds.world(probes=())))
    assert {one.verdict for one in findings} == {Verdict.UNKNOWN}
    assert check.blocks


def test_one_of_two_probes_of_a_kind_that_was_not_asked_is_unknown_beside_the_other() -> None:
    asked = worlds.revision(probes=())
    probes = load(CASES / "no_leaked_stop_token.yaml")[0].probes
    both = (probes[0], probes[0].model_copy(update={"name": "other"}))
    revision = asked.model_copy(update={"spec": asked.spec.model_copy(update={"probes": both})})
    seen = {"leaked": None, "around": "", "forbidden": "x", "answer": "y"}
    fact = ProbeFacts(name="no_leaked_stop_token:stops", service="svc", revision=1, at=worlds.NOW, seen=seen)
    (check,) = [check for check in CHECKS if check.name == "no_leaked_stop_token"]
    found = [one.verdict for one in check.ask(revision, worlds.world(probes=(fact,)))]
    assert found == [Verdict.PASS, Verdict.UNKNOWN]

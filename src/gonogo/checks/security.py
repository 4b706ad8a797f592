"""Condition 5, security: certificate, private state, untouched event chain, exposure, clock. Pure."""

from __future__ import annotations

import ipaddress
from typing import Iterator

from gonogo.checks.finding import Check, Condition, Finding, Stage, Value, Verdict
from gonogo.facts.gateway import CertificateFacts
from gonogo.facts.world import World
from gonogo.spec import Revision

DAY_S = 86400.0
EXPIRING_DAYS = 14
CLOCK_JUMP_S = 60.0


def given_certificate(revision: Revision, world: World) -> Iterator[Finding]:
    """Can the gateway present the user's own certificate? Asked before anything starts; our own is made, not judged."""
    file = revision.spec.gateway.certificate_file
    certificate = world.given_certificates.get(file) if file is not None else None
    if file is None:
        why = {"why": "gateway.certificate_file"}
        yield Finding(reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject="certificate", values=why)
    elif certificate is None:
        yield Finding(reason="CertificateUnknown", verdict=Verdict.UNKNOWN, subject="certificate")
    else:
        yield _valid(revision, certificate, world.at)


def certificate_valid(revision: Revision, world: World) -> Iterator[Finding]:
    """Will clients accept the certificate that the gateway presents: now, for these names, with this key?"""
    if world.certificate is None:
        yield Finding(reason="CertificateUnknown", verdict=Verdict.UNKNOWN, subject="certificate")
    else:
        yield _valid(revision, world.certificate, world.at)


def certificate_lasts(_: Revision, world: World) -> Iterator[Finding]:
    """Is there time to replace the certificate before clients refuse it?"""
    certificate = world.certificate
    if certificate is None:
        yield Finding(reason="CertificateUnknown", verdict=Verdict.UNKNOWN, subject="certificate")
        return
    days_left = (certificate.not_after - world.at) / DAY_S
    lasts = days_left >= EXPIRING_DAYS
    yield Finding(
        reason="CertificateLasts" if lasts else "CertificateExpiring",
        verdict=Verdict.PASS if lasts else Verdict.FAIL,
        subject="certificate",
        values={"subject": certificate.subject, "days_left": int(days_left)},
    )


def _valid(revision: Revision, certificate: CertificateFacts, at: float) -> Finding:
    missing = [name for name in revision.spec.gateway.hostnames if not _names(certificate, name)]
    values: dict[str, Value] = {
        "subject": certificate.subject,
        "days_left": int((certificate.not_after - at) // DAY_S),
        "names": ", ".join(certificate.names),
        "missing": ", ".join(missing) or certificate.problem or "",
    }
    reason, read = "CertificateValid", certificate.not_after > 0
    if read and at < certificate.not_before:
        reason = "CertificateNotYetValid"
    elif read and at >= certificate.not_after:
        reason = "CertificateExpired"
    elif certificate.problem is not None or not certificate.matches_key or missing:
        reason = "CertificateMismatched"
    verdict = Verdict.PASS if reason == "CertificateValid" else Verdict.FAIL
    return Finding(reason=reason, verdict=verdict, subject="certificate", values=values)


def _names(certificate: CertificateFacts, hostname: str) -> bool:
    """Whether the certificate is for this name: as it stands there, or by a star for its first label."""
    asked = hostname.lower()
    known = {name.lower() for name in certificate.names}
    return asked in known or f"*.{asked.partition('.')[2]}" in known


def state_private(_: Revision, world: World) -> Iterator[Finding]:
    """Is the state (keys, database, certificates) readable by its owner alone?"""
    state = world.state
    if state is None or state.owner_only is None:
        yield Finding(reason="StateUnknown", verdict=Verdict.UNKNOWN, subject="state")
        return
    values = {"path": state.path, "exposed": ", ".join(state.exposed_paths)}
    yield Finding(
        reason="StatePrivate" if state.owner_only else "StateExposed",
        verdict=Verdict.PASS if state.owner_only else Verdict.FAIL,
        subject="state",
        values=values,
    )


def state_writable(_: Revision, world: World) -> Iterator[Finding]:
    """Can the state directory be written?"""
    state = world.state
    if state is None or state.writable is None:
        yield Finding(reason="StateUnknown", verdict=Verdict.UNKNOWN, subject="state")
        return
    yield Finding(
        reason="StateWritable" if state.writable else "StateNotWritable",
        verdict=Verdict.PASS if state.writable else Verdict.FAIL,
        subject="state",
        values={"path": state.path, "error": state.write_error},
    )


def events_intact(_: Revision, world: World) -> Iterator[Finding]:
    """Has nobody changed the record of what was done?"""
    state = world.state
    if state is None or state.chain_length is None:
        yield Finding(reason="EventsUnknown", verdict=Verdict.UNKNOWN, subject="events")
        return
    values = {"length": state.chain_length, "broken_at": state.chain_broken_at}
    intact = state.chain_broken_at is None
    yield Finding(
        reason="EventsIntact" if intact else "EventsTampered",
        verdict=Verdict.PASS if intact else Verdict.FAIL,
        subject="events",
        values=values,
    )


def listens_locally(revision: Revision, _: World) -> Iterator[Finding]:
    """Is the gateway reachable from this machine only, or was it opened on purpose?"""
    address = revision.spec.gateway.address
    local = _loopback(address)
    yield Finding(
        reason="ListensLocally" if local else "ListensPublicly",
        verdict=Verdict.PASS if local else Verdict.FAIL,
        subject="gateway",
        values={"address": address},
    )


def engine_on_loopback(revision: Revision, world: World) -> Iterator[Finding]:
    """Does every engine listen on the loopback interface only? It has no keys: whoever reaches it may use it."""
    mine = [
        one
        for one in world.replicas or ()
        if (one.name.service, one.name.revision) == (revision.service, revision.number)
    ]
    if not mine or any(one.listens_on is None for one in mine):
        yield Finding(reason="EngineExposureUnknown", verdict=Verdict.UNKNOWN, subject=f"service/{revision.service}")
        return
    for one in mine:
        open_to = [door for door in one.listens_on or () if not _loopback(door.rpartition(":")[0].strip("[]"))]
        yield Finding(
            reason="EngineExposed" if open_to else "EngineOnLoopback",
            verdict=Verdict.FAIL if open_to else Verdict.PASS,
            subject=f"replica/{one.name}",
            values={"replica": str(one.name), "addresses": ", ".join(open_to or one.listens_on or ())},
        )


def clock_steady(_: Revision, world: World) -> Iterator[Finding]:
    """Did the wall clock jump against the monotonic one since control started? Certificates and expiries hang on it."""
    jump_s = world.host.clock_jump_s if world.host else None
    if jump_s is None:
        yield Finding(reason="ClockUnknown", verdict=Verdict.UNKNOWN, subject="host/local")
        return
    steady = abs(jump_s) < CLOCK_JUMP_S
    yield Finding(
        reason="ClockSteady" if steady else "ClockJumped",
        verdict=Verdict.PASS if steady else Verdict.FAIL,
        subject="host/local",
        values={"jump_s": round(jump_s, 1)},
    )


def clock_kept(revision: Revision, world: World) -> Iterator[Finding]:
    """Does somebody keep this host's clock right? Only who is reached from other machines is compared with theirs."""
    host = world.host
    subject = "host/local" if host is None else f"host/{host.name}"
    if _loopback(revision.spec.gateway.address):
        why = {"why": "OneClock"}
        yield Finding(reason="NotApplicable", verdict=Verdict.NOT_APPLICABLE, subject=subject, values=why)
    elif host is None or host.clock_kept is None:
        yield Finding(reason="ClockKeptUnknown", verdict=Verdict.UNKNOWN, subject=subject)
    elif host.clock_kept:
        yield Finding(reason="ClockKept", verdict=Verdict.PASS, subject=subject)
    else:
        yield Finding(reason="ClockNotKept", verdict=Verdict.FAIL, subject=subject)


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


_OF_CERTIFICATES = (
    "CertificateValid",
    "CertificateExpired",
    "CertificateNotYetValid",
    "CertificateMismatched",
    "CertificateUnknown",
)
CHECKS = (
    Check(
        name="state_writable",
        condition=Condition.SECURITY,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=("StateWritable", "StateNotWritable", "StateUnknown"),
        ask=state_writable,
    ),
    Check(
        name="state_private",
        condition=Condition.SECURITY,
        stages=(Stage.PREFLIGHT, Stage.LIVE),
        blocks=True,
        reasons=("StatePrivate", "StateExposed", "StateUnknown"),
        ask=state_private,
    ),
    Check(
        name="listens_locally",
        condition=Condition.SECURITY,
        stages=(Stage.PREFLIGHT, Stage.LIVE),
        blocks=False,
        reasons=("ListensLocally", "ListensPublicly"),
        ask=listens_locally,
    ),
    Check(
        name="given_certificate",
        condition=Condition.SECURITY,
        stages=(Stage.PREFLIGHT,),
        blocks=True,
        reasons=_OF_CERTIFICATES,
        ask=given_certificate,
    ),
    Check(
        name="certificate_valid",
        condition=Condition.SECURITY,
        stages=(Stage.DEPLOY, Stage.LIVE),
        blocks=True,
        reasons=_OF_CERTIFICATES,
        ask=certificate_valid,
    ),
    Check(
        name="certificate_lasts",
        condition=Condition.SECURITY,
        stages=(Stage.DEPLOY, Stage.LIVE),
        blocks=False,
        reasons=("CertificateLasts", "CertificateExpiring", "CertificateUnknown"),
        ask=certificate_lasts,
    ),
    Check(
        name="engine_on_loopback",
        condition=Condition.SECURITY,
        stages=(Stage.DEPLOY, Stage.LIVE),
        blocks=True,
        reasons=("EngineOnLoopback", "EngineExposed", "EngineExposureUnknown"),
        ask=engine_on_loopback,
    ),
    Check(
        name="events_intact",
        condition=Condition.SECURITY,
        stages=(Stage.LIVE,),
        blocks=True,
        reasons=("EventsIntact", "EventsTampered", "EventsUnknown"),
        ask=events_intact,
    ),
    Check(
        name="clock_steady",
        condition=Condition.SECURITY,
        stages=(Stage.LIVE,),
        blocks=False,
        reasons=("ClockSteady", "ClockJumped", "ClockUnknown"),
        ask=clock_steady,
    ),
    Check(
        name="clock_kept",
        condition=Condition.SECURITY,
        stages=(Stage.PREFLIGHT,),
        blocks=False,
        reasons=("ClockKept", "ClockNotKept", "ClockKeptUnknown"),
        ask=clock_kept,
    ),
)

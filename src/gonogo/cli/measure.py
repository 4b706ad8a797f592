"""Measures this host for `gonogo check --measure`, and tells what is being measured meanwhile."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Mapping

from gonogo.cli.refusal import WRONG_INPUT, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.facts.host import HostFacts
    from gonogo.facts.measured import Measured
    from gonogo.runtimes.measure import Tier
    from gonogo.spec.profile import Profile


def measured(session: Session, host: HostFacts, profile: Profile, python: str | None) -> Measured:
    """What this host does per second: processor, memory, the profile's storage tiers (or the state directory's), GPUs.

    Raises `Refusal` OptionMistaken when `python` is no program.
    """
    from gonogo.cli.progress import Progress
    from gonogo.runtimes.measure import MOST_BYTES, SECONDS, Request, find_torch, measure

    if python is not None and shutil.which(python) is None:
        words = f"{python}: {os.strerror(2)}"
        raise Refusal("OptionMistaken", WRONG_INPUT, {"option": "--python", "words": words})
    cards = host.accelerators is None or len(host.accelerators) > 0 or python is not None
    with Progress(session) as progress:

        def tell(part: str, values: Mapping[str, object]) -> None:
            step = session.told(f"measure.{values['step']}")
            index, count = values.get("index"), values.get("count")
            number = f" {index + 1}/{count}" if isinstance(index, int) and count is not None else ""
            progress.step(f"progress.measure_{part}", **{**values, "step": step + number})

        request = Request(
            threads=host.cores or 1,
            tiers=_tiers(session, profile),
            accelerators=cards,
            python=find_torch(python) if cards else None,
            seconds=SECONDS,
            most_bytes=MOST_BYTES,
        )
        return measure(request, tell)


def _tiers(session: Session, profile: Profile) -> tuple[Tier, ...]:
    from gonogo.checks.profile import TIERS
    from gonogo.runtimes.look import look_at_host
    from gonogo.runtimes.measure import Tier

    named = {tier: getattr(profile.storage, tier) for tier in TIERS}
    paths = {tier: wishes.path for tier, wishes in named.items() if wishes is not None}
    if "hot" not in paths:
        paths = {"hot": str(session.paths.root), **paths}
    kinds = {disk.path: disk.kind for disk in look_at_host(tuple(paths.values()), (), 0).disks or ()}
    return tuple(Tier(name=tier, path=path, kind=kinds.get(path)) for tier, path in paths.items())

"""`gonogo env create` and `gonogo env bundle`: what is downloaded is told and asked before the first byte."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gonogo.cli.env_choice import Locked, Order, locked, uv_for
from gonogo.cli.env_page import environment_lines, plain_environment
from gonogo.cli.progress import Progress
from gonogo.cli.refusal import Outcome
from gonogo.facts.environment_lock import render_lock
from gonogo.runtimes.environment_building import BuildOrder, make_environment, refuse_full_disk
from gonogo.runtimes.environment_bundle import open_bundle, write_bundle
from gonogo.runtimes.package_sources import PackageSources, sources_here

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.runtimes.environments import EnvironmentStore, Made

MIB = 1024**2


def create_environment(session: Session, store: EnvironmentStore, order: Order) -> Outcome:
    """Make it, or find it made. Raises Refusal, EnvironmentFault."""
    if order.bundle_file is None:
        return _create(session, store, order, sources_here(order.wheels, order.offline))
    store.make()
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=store.root) as folder:
        lock_file, wheels = open_bundle(Path(order.bundle_file), Path(folder))
        given = replace(order, lock_file=str(lock_file))
        return _create(session, store, given, PackageSources(folders=(str(wheels),), offline=True))


def create_bundle(session: Session, store: EnvironmentStore, order: Order, output: str | None) -> Outcome:
    """Fetch all wheels of a lock into one file. Raises Refusal, EnvironmentFault."""
    found = locked(session, store, order, fresh=False)
    path = Path(output if output is not None else f"{found.lock.name}.tar").absolute()
    with Progress(session) as progress:
        progress.step("env.bundling", packages=len(found.lock.packages))
        store.keep_lock(found.lock.digest, render_lock(found.lock))
        count = write_bundle(found.lock, found.python, sources_here(order.wheels, order.offline), path)
    size = path.stat().st_size
    session.say("env.bundled", wheels=count, mib=size // MIB)
    session.line(str(path))
    return Outcome(result={"path": str(path), "wheels": count, "bytes": size, **found.plain()})


def made_environment(
    session: Session, store: EnvironmentStore, order: Order, sources: PackageSources
) -> tuple[Made | None, bool, Locked]:
    """The environment of the release that fits, whether it was made now, and its lock; None: the user said no.

    Raises Refusal, EnvironmentFault.
    """
    found = locked(session, store, order, fresh=False)
    build = BuildOrder(
        lock=found.lock,
        python=found.python,
        sources=sources,
        measured_bytes=found.build.disk_mb * 1_000_000 if found.build and found.build.disk_mb else None,
    )
    if store.find(found.lock.name) is None:
        store.make()
        refuse_full_disk(store.root, build)
        if not _agreed(session, found):
            return None, False, found
    with Progress(session) as progress:
        made, now = make_environment(store, uv_for(store), build, lambda name, values: progress.step(name, **values))
    return made, now, found


def _create(session: Session, store: EnvironmentStore, order: Order, sources: PackageSources) -> Outcome:
    made, now, found = made_environment(session, store, order, sources)
    if made is None:
        session.say("nothing_changed")
        return Outcome(result={"environment": None})
    for line in environment_lines(session, made):
        session.line(line)
    session.say("env.made" if now else "env.was_there", name=made.name)
    return Outcome(result={"environment": plain_environment(made), "made": now, **found.plain()})


def _agreed(session: Session, found: Locked) -> bool:
    size = found.lock.download_bytes
    values = {"engine": found.lock.engine, "version": found.lock.version, "packages": len(found.lock.packages)}
    session.say("env.will_fetch", **values, mib=None if size is None else size // MIB)
    for requirement in found.lock.overridden:
        session.say("env.overridden", requirement=requirement)
    if found.lock.left_out:
        session.say("env.left_out", packages=", ".join(found.lock.left_out))
    return not session.asks or typer.confirm(session.told("ask.apply"))

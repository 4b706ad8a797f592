"""The store's view with the rules of each revision worked out, once per change.

Not here: SQL (`gonogo.store`), and how old a view may be (`snapshot`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

from gonogo.gateway.policy.decide import View
from gonogo.gateway.policy.rules import ServiceRules, rules_of
from gonogo.security.keys import KeyRow
from gonogo.store import open_reader
from gonogo.store.policy_view import PolicyView
from gonogo.store.reader import Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class RuledView:
    """What decisions are made by (`decide.View`)."""

    keys: Mapping[str, KeyRow]
    serving: Mapping[str, int]
    rules: Mapping[str, ServiceRules]
    made_at: Mapping[str, float]


def ruled(view: PolicyView) -> RuledView:
    """The same look, with rules for specs."""
    return RuledView(
        keys=view.keys,
        serving=view.serving,
        rules={name: rules_of(revision.spec) for name, revision in view.revisions.items()},
        made_at={name: revision.made_at for name, revision in view.revisions.items()},
    )


class RuledReader:
    """The store, read-only, as a policy server asks it (`snapshot.Reader`)."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def changed(self) -> bool:
        """Whether keys or serving revisions changed since the last `policy_view`. Raises `StoreUnreadable`."""
        return self._reader.changed()

    def policy_view(self) -> View:
        """Keys, and the revisions that they may use, with their rules. Raises `StoreUnreadable`."""
        return ruled(self._reader.policy_view())

    def close(self) -> None:
        self._reader.close()


def open_ruled(path: Path) -> RuledReader:
    """Raises `StoreUnreadable`, `StoreFuture`."""
    return RuledReader(open_reader(path))

"""Shows what happens while a command waits: a moving line on a terminal, plain lines elsewhere, fed by the events.

On standard error, so that standard output holds the result alone.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping

from gonogo.cli.refusal import WORLD_DID_NOT_COMPLY, Refusal
from gonogo.words.events import event_text

if TYPE_CHECKING:
    from gonogo.api.client import ControlClient
    from gonogo.cli.session import Session

STARTING, LONGEST_SAID = "starting", 100
SETTLED = ("proven", "rejected", "blocked")
WAIT_S = 1.0
STILL_AFTER_S = 5.0
"""A control process that has not answered for so long is told to be waited for."""
STUCK_LIMIT_S = 10.0
"""So long a command waits for a store that takes nothing: somebody may be making room."""
LINE_EVERY_S = 10.0
"""Where there is no terminal, what moves is told no more often."""
LOG_BYTES = 8192
_WHO = re.compile(r"^\(\w+ pid=\d+\) |\b(?:INFO|WARNING|ERROR) \d\d-\d\d [\d:]+ \[[\w./]+:\d+\] ")
"""How vLLM begins a line."""
QUIET = ("ActionFinished", "FindingsChanged", "KeyAdded", "KeyRevoked")
"""Events that tell a waiting user nothing: the ends of actions, and the keys that probes use."""


class Progress:
    """A status line; use it in `with`. `step` says what is being done, `note` what has happened."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._status: Any = None
        self._last: str | None = None
        self._begun_at = self._moved_at = time.monotonic()

    def __enter__(self) -> Progress:
        if self._session.err.is_terminal:
            self._status = self._session.err.status("")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def step(self, name: str, /, **values: object) -> None:
        """What is being done now: a message of the catalogue."""
        self._show(self._session.told(name, **values))

    def moving(self, name: str, /, **values: object) -> None:
        """What is being done now and changes all the time: one line that is written over, elsewhere a line at times."""
        now = time.monotonic()
        if self._status is not None:
            from rich.text import Text

            self._status.update(Text(self._session.told(name, **values)))
        elif self._moved_at == self._begun_at or now - self._moved_at >= LINE_EVERY_S:
            self._moved_at = now
            self._show(self._session.told(name, **values))

    def control_waited(self, waited_s: float) -> None:
        """The control process that was started has not answered for so long."""
        if waited_s > STILL_AFTER_S:
            log = self._session.paths.log("control", "main")
            self.moving("progress.control_waits", seconds=int(waited_s), log=log)

    def loading(self, replicas: Iterable[Mapping[str, Any]]) -> None:
        """Of replicas, as control's status has them, the first that generated nothing yet: what its log said last."""
        for one in replicas:
            if one["health"] == STARTING and one["age_s"] > STILL_AFTER_S:
                said = _last_line(self._session.paths.log("replica", str(one["id"])))
                self.moving("progress.loading", replica=one["id"], seconds=int(one["age_s"]), said=said)
                return

    def control_away(self) -> None:
        """Nobody answers for control now. Raises `StoreFull` where the next one finds no room either."""
        from gonogo.store.room import GO_ON_BYTES, require_room

        self.step("progress.control_away")
        require_room(self._session.paths.database, GO_ON_BYTES)

    def refused(self, refused: Mapping[str, Any], limit_s: float) -> None:
        """What control met, and that it is waited for so long."""
        from gonogo.words import finding_text

        text = finding_text(str(refused["reason"]), refused["values"], self._session.lang)
        self.step("progress.stuck", seen=text.seen, remedy=text.remedy, seconds=int(limit_s))

    def event(self, event: Mapping[str, Any]) -> None:
        """What an event tells, unless it tells a waiting user nothing."""
        if event["kind"] not in QUIET:
            self._show(event_text(event, self._session.lang))

    def _show(self, text: str) -> None:
        if text == self._last:
            return
        self._last = text
        line = f"{time.monotonic() - self._begun_at:5.1f} s  {text}"
        if self._status is None:
            self._session.err.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            self._session.err.print(line, markup=False, highlight=False, style="dim")
            from rich.text import Text

            self._status.update(Text(text))


def newest_sequence(client: ControlClient) -> int:
    """The sequence of the last event there is, 0 when there is none."""
    last = 0
    while found := client.events(after=last, limit=1000):
        last = int(found[-1]["sequence"])
    return last


def follow_until(
    client: ControlClient, progress: Progress, settled: Callable[[Mapping[str, Any]], Any], after: int, limit_s: float
) -> Any:
    """Show events until `settled(status)` gives something, and return that; None when `limit_s` are over.

    A control process that dies meanwhile is waited for: the keeper starts the next one. Raises `ControlSilent` when
    there is none until then, `StoreFull` where there is no room for it, `Refusal` when its store takes nothing.
    """
    from gonogo.api.client import ControlSilent

    deadline = time.monotonic() + limit_s
    stuck = _Stuck(progress)
    while True:
        try:
            status = client.status()
            result = settled(status)
            if result is not None:
                return result
            stuck.look(status.get("store"))
            for event in client.events(after=after, wait_s=WAIT_S):
                after = max(after, int(event["sequence"]))
                progress.event(event)
        except ControlSilent:
            if time.monotonic() > deadline:
                raise
            progress.control_away()
            time.sleep(WAIT_S / 2)
        if time.monotonic() > deadline:
            return None


def _last_line(log: Path) -> str:
    """What a log said last, in short: without who said it and when; … where there is nothing yet."""
    from gonogo.runtimes.local import tail

    lines = [line for line in tail(log, 20, LOG_BYTES) if line.strip()]
    line = _WHO.sub("", lines[-1]).strip() if lines else ""
    line = "".join(each if each.isprintable() else " " for each in line)
    return line if 0 < len(line) <= LONGEST_SAID else f"{line[:LONGEST_SAID]}…"


class _Stuck:
    """How long control's store has taken nothing."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._since: float | None = None

    def look(self, refused: Mapping[str, Any] | None) -> None:
        """`refused`: a reason and its values, as control's status has them. Raises `Refusal` after `STUCK_LIMIT_S`."""
        if refused is None:
            self._since = None
            return
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        left_s = STUCK_LIMIT_S - (now - self._since)
        if left_s <= 0:
            raise Refusal(refused["reason"], WORLD_DID_NOT_COMPLY, refused["values"])
        self._progress.refused(refused, STUCK_LIMIT_S)

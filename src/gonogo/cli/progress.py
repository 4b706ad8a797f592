"""Shows what happens while a command waits: a moving line on a terminal, plain lines elsewhere, fed by the events.

On standard error, so that standard output holds the result alone.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Mapping

from gonogo.words.events import event_text

if TYPE_CHECKING:
    from gonogo.api.client import ControlClient
    from gonogo.cli.session import Session

SETTLED = ("proven", "rejected", "blocked")
WAIT_S = 1.0
LINE_EVERY_S = 10.0
"""Where there is no terminal, what moves is told no more often."""
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
    there is none until then.
    """
    from gonogo.api.client import ControlSilent

    deadline = time.monotonic() + limit_s
    while True:
        try:
            result = settled(client.status())
            if result is not None:
                return result
            for event in client.events(after=after, wait_s=WAIT_S):
                after = max(after, int(event["sequence"]))
                progress.event(event)
        except ControlSilent:
            if time.monotonic() > deadline:
                raise
            progress.step("progress.control_away")
            time.sleep(WAIT_S / 2)
        if time.monotonic() > deadline:
            return None

"""The transfer of a model's files: several segments side by side, gone on with after every failure, each file verified.

Bounded: connections, tries without progress, pauses, and how slow a hub may be. Not here: which files, and where they
end up (`fetch.py`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Sequence

from gonogo.facts.checkpoint import RepoFile
from gonogo.runtimes.checkpoint_reading import RepositoryError
from gonogo.runtimes.fetch_parts import SEGMENT_BYTES, PartFile, kept_bytes, segment_bytes_of, wrong_content
from gonogo.runtimes.hub_client import HubClient, Limits, Stream, TryAgain
from gonogo.runtimes.models import PARTS, ModelFault

POLL_S, LONGEST_OWN_PAUSE_S = 0.25, 30.0
Progress = Callable[[int], None]
"""Told again and again how many bytes are there."""


def _hub_limits() -> Limits:
    return Limits(silence_s=20.0, total_s=float("inf"), total_bytes=1 << 62)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLimits:
    """How much at once, and how long to try.

    `tries`: without `least_bytes` more in one of them. `longest_pause_s`: Hugging Face counts requests in windows of
    300 s and says when the next begins. A hub that sends less than `least_bytes` in `slow_s` is hung up on.
    """

    at_once: int = 4
    segment_bytes: int = SEGMENT_BYTES
    tries: int = 6
    pause_s: float = 1.0
    longest_pause_s: float = 330.0
    slow_s: float = 60.0
    least_bytes: int = 64 * 1024
    hub: Limits = field(default_factory=_hub_limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One file, which content that is, and where it lies at the pinned commit."""

    file: RepoFile
    identity: bytes
    url: str


class _RangesIgnored(Exception):
    """The hub sends the file from its start, whatever part was asked for."""


class _Stopped(Exception):
    """Somebody else's failure, or Ctrl-C, ends this."""


class _One:
    """One file under way; its part is opened when its first segment is. `left`: segments that are not done with."""

    def __init__(self, wanted: Wanted, work: Path, segment_bytes: int) -> None:
        self.wanted, self.place, self._folder = wanted, work / wanted.file.name, work / PARTS
        self.size_bytes = wanted.file.size_bytes or 0
        self._segment_bytes = segment_bytes_of(self._folder, wanted.file.name, wanted.identity, segment_bytes)
        self.segments = range(max(1, -(-self.size_bytes // self._segment_bytes)))
        self.left, self.ranges_ignored = len(self.segments), False
        self._part: PartFile | None = None
        self._lock = threading.Lock()

    @property
    def kept_bytes(self) -> int:
        return kept_bytes(self._folder, self.wanted.file.name, self.wanted.identity)

    @property
    def part(self) -> PartFile:
        with self._lock:
            if self._part is None:
                name, identity = self.wanted.file.name, self.wanted.identity
                self._part = PartFile(self._folder, name, self.size_bytes, identity, self._segment_bytes)
            return self._part

    def close(self) -> None:
        with self._lock:
            if self._part is not None:
                self._part.close()
                self._part = None


class Transfer:
    """Fetches files into the folder `work`; what is whole and verified lies there under its own name.

    `run` raises RepositoryError, ModelFault, OSError, KeyboardInterrupt; what was fetched until then is kept.
    """

    def __init__(self, client: HubClient, work: Path, limits: TransferLimits) -> None:
        self._client, self._work, self._limits = client, work, limits
        self._stop, self._lock, self._have = threading.Event(), threading.Lock(), 0

    def run(self, files: Sequence[Wanted], progress: Progress) -> None:
        """Fetch them all."""
        every = [_One(wanted, self._work, self._limits.segment_bytes) for wanted in files]
        lacking = [one for one in every if not one.place.exists()]
        self._have = sum(one.kept_bytes if one in lacking else one.size_bytes for one in every)
        try:
            with ThreadPoolExecutor(max_workers=self._limits.at_once) as pool:
                self._follow({pool.submit(self._unit, one, at) for one in lacking for at in one.segments}, progress)
        finally:
            for one in lacking:
                one.close()

    def _follow(self, waiting: set[Future[None]], progress: Progress) -> None:
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=POLL_S, return_when=FIRST_EXCEPTION)
                for finished in done:
                    finished.result()
                progress(self._have)
        finally:
            self._stop.set()
            for late in waiting:
                late.cancel()
            if waiting:
                self._client.close()

    def _unit(self, one: _One, segment: int) -> None:
        """One segment; whoever is done with the last one of a file verifies it."""
        try:
            if not one.ranges_ignored:
                with contextlib.suppress(_RangesIgnored):
                    self._segment(one, segment)
            with self._lock:
                one.left -= 1
                last = one.left == 0
            if last:
                self._finish(one)
        except _Stopped:
            return
        except (TryAgain, RepositoryError, ModelFault, OSError, RuntimeError):
            if not self._stop.is_set():  # else the client was closed under it
                raise

    def _finish(self, one: _One) -> None:
        self._complete(one)
        wrong = wrong_content(one.part.path, one.wanted.file)
        if wrong is not None:
            self._count(-one.part.forget())
            self._complete(one)
            wrong = wrong_content(one.part.path, one.wanted.file)
        if wrong is not None:
            self._count(-one.part.forget())
            raise ModelFault("ModelHashWrong", {"file": one.wanted.file.name, "words": wrong})
        one.part.keep(one.place)
        one.close()

    def _complete(self, one: _One) -> None:
        """Whatever is still missing, in this thread."""
        with contextlib.suppress(_RangesIgnored):
            for segment in one.segments:
                if one.ranges_ignored:
                    break
                self._segment(one, segment)
        if not one.part.whole:
            self._tried(lambda: self._from_the_start(one), lambda: one.part.whole, lambda: 0)

    def _segment(self, one: _One, segment: int) -> None:
        def once() -> None:
            first, last = one.part.missing(segment) or (0, -1)
            with self._client.opened(one.wanted.url, first, last) as stream:
                _refuse_other(one, stream)
                if stream.first != first:
                    one.ranges_ignored = True
                    raise _RangesIgnored
                self._take(one, (segment,), stream)

        self._tried(once, lambda: one.part.missing(segment) is None, lambda: one.part.done_bytes)

    def _from_the_start(self, one: _One) -> None:
        """The whole file in one answer: a hub that ignores ranges cannot be asked for the rest."""
        self._count(-one.part.forget())
        with self._client.opened(one.wanted.url, 0, one.size_bytes - 1) as stream:
            _refuse_other(one, stream)
            self._take(one, one.segments, stream)

    def _tried(self, once: Callable[[], None], done: Callable[[], bool], have: Callable[[], int]) -> None:
        """Try until `done`. Raises RepositoryError after too many tries without progress in `have`."""
        idle, pause_s = 0, self._limits.pause_s
        while not done():
            before = have()
            failed = TryAgain("hub_broken", "the hub ended its answer too early")
            try:
                once()
            except TryAgain as error:
                failed = error
            if done():
                return
            if have() - before >= self._limits.least_bytes:
                idle, pause_s = 0, self._limits.pause_s
            idle += 1
            wait_s = pause_s if failed.pause_s is None else failed.pause_s
            if idle >= self._limits.tries or wait_s > self._limits.longest_pause_s:
                raise failed.error from None
            if self._stop.wait(wait_s):
                raise _Stopped
            pause_s = min(2 * pause_s, LONGEST_OWN_PAUSE_S)

    def _take(self, one: _One, segments: Sequence[int], stream: Stream) -> None:
        """Write what comes into these segments, one after another; hangs up when they are full, or it is too slow."""
        left = list(segments)
        counted, since = 0, time.monotonic()
        for piece in stream.pieces:
            if self._stop.is_set():
                raise _Stopped
            rest = memoryview(piece)
            while rest and left:
                written = one.part.write(left[0], rest)
                self._count(written)
                counted, rest = counted + written, rest[written:]
                if one.part.missing(left[0]) is None:
                    left.pop(0)
            if not left:
                return
            if (now := time.monotonic()) - since > self._limits.slow_s:
                if counted < self._limits.least_bytes:
                    raise TryAgain("hub_broken", f"the hub sent {counted} bytes in {self._limits.slow_s:g} s")
                counted, since = 0, now

    def _count(self, count: int) -> None:
        with self._lock:
            self._have += count


def _refuse_other(one: _One, stream: Stream) -> None:
    if stream.file_bytes is not None and stream.file_bytes != one.size_bytes:
        told = f"{one.wanted.file.name}: {one.size_bytes} bytes are listed, {stream.file_bytes} are served"
        raise RepositoryError("shard_damaged", told)

"""Asks a hub for bytes, and never takes more than it asked for: bounded in size, time and tries.

`huggingface_hub` says where a file lies and which token belongs there; its own client is not used, since it reads an
answer whole: a hub that ignores `Range` would be read until memory ends (`HfApi.parse_safetensors_file_metadata`).
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
import weakref
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping, Union

import httpx

from gonogo.runtimes.checkpoint_reading import RepositoryError

MOST_REDIRECTS, LONGEST_MESSAGE = 5, 120
PIECE_BYTES = 64 * 1024
_RATE_LIMIT = re.compile(r";\s*r\s*=\s*0+\s*;\s*t\s*=\s*(\d{1,7})\b", re.ASCII)
_CONNECTED = ("connection.connect_tcp.complete", "connection.start_tls.complete")
_AGAIN = (408, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a hub may take: to connect, between two pieces, for everything; how often, and after what pauses.

    `total_bytes`: all answers together. The headers of the largest models known have some 50 MB.
    """

    connect_s: float = 10.0
    silence_s: float = 10.0
    total_s: float = 180.0
    total_bytes: int = 1024**3
    tries: int = 3
    pause_s: float = 1.0
    longest_pause_s: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes from the start of a file, and how large the hub says the file is."""

    content: bytes
    file_bytes: Union[int, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """An answer that is being sent: its bytes from `first` on. `file_bytes`: how large the hub says the file is."""

    first: int
    file_bytes: Union[int, None]
    pieces: Iterator[bytes]


class TryAgain(Exception):
    """This try failed in a way that the next may not. `error`: what it was; `pause_s`: what the hub itself asks for."""

    def __init__(self, kind: str, detail: str, pause_s: Union[float, None] = None) -> None:
        super().__init__(detail)
        self.error, self.pause_s = RepositoryError(kind, detail), pause_s


class HubClient:
    """One client for one look at one hub. Raises RepositoryError only. `received_bytes` counts bodies."""

    def __init__(
        self,
        headers: Mapping[str, str],
        limits: Limits,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limits, self._now, self._sleep = limits, now, sleep
        self._end = now() + limits.total_s
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._closed = False
        self.received_bytes, self._counting = 0, threading.Lock()
        if not all(value.isascii() and value.isprintable() for value in headers.values()):
            raise RepositoryError("unauthorized", "the token holds characters that no token has")
        try:
            self._client = httpx.Client(
                headers={**headers, "accept-encoding": "identity"},
                follow_redirects=True,  # to a hub's own storage; httpx keeps the token for the first host
                max_redirects=MOST_REDIRECTS,
                timeout=httpx.Timeout(limits.silence_s, connect=limits.connect_s),
            )
        except (ValueError, httpx.InvalidURL):  # its text may hold the proxy's password
            raise RepositoryError("hub_unreachable", "a proxy in the environment is no http or https address") from None

    def close(self) -> None:
        """Ends what is under way in other threads too: closing alone would let them wait for a silent hub."""
        with self._counting:
            self._closed, open_now = True, list(self._sockets)
        for one in open_now:
            _hang_up(one)
        self._client.close()

    def whole(self, url: str, most_bytes: int) -> bytes:
        """The whole answer; longer than `most_bytes` is refused."""
        part = self._tried(lambda: self._once(url, {}, most_bytes + 1))
        if len(part.content) > most_bytes:
            raise RepositoryError("hub_broken", f"{_host(url)} sends more than the {most_bytes} bytes that are read")
        return part.content

    def start_of(self, url: str, count: int) -> Part:
        """The first `count` bytes of a file, fewer where it ends. A hub that sends all of it is hung up on."""
        wanted = {"range": f"bytes=0-{count - 1}"}
        return self._tried(lambda: self._once(url, wanted, count))

    @contextlib.contextmanager
    def opened(self, url: str, first: int, last: int) -> Iterator[Stream]:
        """Ask once for the bytes from `first` to `last`. A hub that ignores that sends from 0: `Stream.first` says so.

        Raises TryAgain where another try may help, RepositoryError where none does.
        """
        with self._named(url), self._asked(url, {"range": f"bytes={first}-{last}"}) as answer:
            self._refuse(answer)
            begins, file_bytes = _place(answer)
            if begins not in (0, first):
                raise RepositoryError("hub_broken", f"{answer.url.host} sends another part of the file than asked for")
            # as they come, not gathered to a size: who waits for the next must see how slow they are
            yield Stream(first=begins, file_bytes=file_bytes, pieces=answer.iter_raw())

    def _tried(self, once: Callable[[], Part]) -> Part:
        pause_s = self._limits.pause_s
        for left in reversed(range(self._limits.tries)):
            try:
                return once()
            except TryAgain as failed:
                wait_s = pause_s if failed.pause_s is None else failed.pause_s
                too_long = wait_s > self._limits.longest_pause_s or self._now() + wait_s > self._end
                if left == 0 or too_long:
                    raise failed.error from None
                self._sleep(wait_s)
                pause_s *= 2
        raise AssertionError("tries is at least 1")

    def _once(self, url: str, headers: Mapping[str, str], most_bytes: int) -> Part:
        self._within_limits(_host(url))
        with self._named(url), self._asked(url, headers) as answer:
            self._refuse(answer)
            return self._taken(answer, most_bytes)

    def _asked(self, url: str, headers: Mapping[str, str]) -> contextlib.AbstractContextManager[httpx.Response]:
        return self._client.stream("GET", url, headers=dict(headers), extensions={"trace": self._connected})

    def _connected(self, event: str, info: Mapping[str, Any]) -> None:
        """httpcore's trace: remember each connection's socket."""
        if event in _CONNECTED and (one := info["return_value"].get_extra_info("socket")) is not None:
            with self._counting:
                self._sockets.add(one)
                closed = self._closed
            if closed:
                _hang_up(one)

    @contextlib.contextmanager
    def _named(self, url: str) -> Iterator[None]:
        """What goes wrong with a connection, as TryAgain and RepositoryError."""
        try:
            yield
        except httpx.TimeoutException:
            raise TryAgain(
                "hub_unreachable", f"{_host(url)} did not answer within {self._limits.silence_s:g} s"
            ) from None
        except (httpx.TransportError, httpx.TooManyRedirects) as error:
            raise TryAgain("hub_unreachable", f"{_host(url)}: {_short(str(error) or type(error).__name__)}") from None
        except (httpx.InvalidURL, ValueError):
            raise RepositoryError("hub_unreachable", f"{_host(url)} is no address that can be asked") from None

    def _taken(self, answer: httpx.Response, most_bytes: int) -> Part:
        host = answer.url.host
        first, total = _place(answer)
        if first != 0:
            raise RepositoryError("hub_broken", f"{host} sends another part of the file than was asked for")
        pieces, have = [], 0
        for piece in answer.iter_raw(PIECE_BYTES):
            with self._counting:
                self.received_bytes += len(piece)
            pieces.append(piece[: most_bytes - have])
            have += len(pieces[-1])
            if have >= most_bytes:
                break
            self._within_limits(host)
        wanted = have if total is None else min(most_bytes, total)
        if have < wanted:
            raise TryAgain("hub_broken", f"{host} ended after {have} of {wanted} bytes")
        return Part(content=b"".join(pieces), file_bytes=total)

    def _within_limits(self, host: str) -> None:
        if self.received_bytes > self._limits.total_bytes:
            raise RepositoryError("hub_broken", f"{host} sent more than {self._limits.total_bytes} bytes of headers")
        if self._now() > self._end:
            raise RepositoryError("hub_unreachable", f"{host} took longer than {self._limits.total_s:g} s")

    def _refuse(self, answer: httpx.Response) -> None:
        """Raises for every status but 200 and 206."""
        status, host = answer.status_code, answer.url.host
        if status in (200, 206):
            return
        code = answer.headers.get("x-error-code", "")
        told = _short(answer.headers.get("x-error-message", ""))
        detail = f"{host} answered {status}{': ' + told if told else ''}"
        if status == 429:
            pause_s = _pause_asked(answer.headers)
            again = "" if pause_s is None else f"; it asks to wait {pause_s:g} s"
            raise TryAgain("rate_limited", detail + again, pause_s)
        if status in _AGAIN:
            raise TryAgain("hub_broken", detail, _pause_asked(answer.headers))
        if code == "GatedRepo":
            raise RepositoryError("gated", detail)
        if status in (401, 403):
            sent = "with a token" if "authorization" in self._client.headers else "without a token"
            raise RepositoryError("unauthorized", f"{detail} (asked {sent})")
        if status == 404:
            raise RepositoryError("not_found", f"{detail}{' (no such revision)' if code == 'RevisionNotFound' else ''}")
        raise RepositoryError("hub_broken", detail)


def _hang_up(one: socket.socket) -> None:
    """Not the method of a TLS socket, which another thread may be reading from."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(one, socket.SHUT_RDWR)


def _pause_asked(headers: Mapping[str, str]) -> Union[float, None]:
    """Seconds, from `Retry-After`, or from a `RateLimit` that has run out ('"api";r=0;t=55'); None: neither says."""
    told = _digits(headers.get("retry-after", "").strip())
    if told is not None:
        return float(told)
    found = _RATE_LIMIT.search(headers.get("ratelimit", ""))
    return float(found[1]) if found else None


def _place(answer: httpx.Response) -> tuple[Union[int, None], Union[int, None]]:
    """At which byte an answer begins, and the file's size, where it says so. Raises RepositoryError."""
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise RepositoryError("hub_broken", f"{answer.url.host} compresses although it was asked not to")
    return _content_range(answer) if answer.status_code == 206 else (0, _length(answer))


def _content_range(answer: httpx.Response) -> tuple[Union[int, None], Union[int, None]]:
    """First byte and the file's size from "bytes 0-99/1234"; None where it does not say."""
    unit, _, rest = answer.headers.get("content-range", "").partition(" ")
    span, _, total = rest.partition("/")
    return (_digits(span.partition("-")[0]) if unit == "bytes" else None), _digits(total)


def _length(answer: httpx.Response) -> Union[int, None]:
    return _digits(answer.headers.get("content-length", ""))


def _digits(text: str) -> Union[int, None]:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _host(url: str) -> str:
    try:
        return httpx.URL(url).host or "the hub"
    except (httpx.InvalidURL, ValueError):
        return "the hub"


def _short(text: str) -> str:
    """A stranger's words for a terminal: printable, and not many."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return plain if len(plain) <= LONGEST_MESSAGE else plain[: LONGEST_MESSAGE - 1] + "…"

"""The independent verifier of the event chain: own SQL, own canonical JSON, no code of the writer's.

    python -m gonogo.security.verify STATE_DIR/gonogo.db

What a chain can show: no event was changed, removed from the middle, put in between, or moved. What it cannot show
alone: that the end was not cut off, since a shorter chain is a whole chain. For that the writer keeps the last
sequence and hash in `chain-head` beside the database, written after each commit: a chain that does not reach it, or
reaches it with another hash, is broken. What neither can show: that somebody who may write both files did not make a
new chain and a new head. Nor does the chain say anything of the other tables (keys, services): it is history, not
state. Against the owner of the files only a signed head kept elsewhere helps.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import sys
from dataclasses import asdict, dataclass
from json.encoder import encode_basestring as _quoted
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import quote

_FIRST_PREVIOUS = "0" * 64
_COLUMNS = "sequence, at_ms, actor, principal, request_id, kind, service, revision, detail, previous_hash, hash"
_HEAD_FILE = "chain-head"
_EXACT = 2**53
_LEAST = -(2**63)
"""Below every sequence: a whole proof looks at rows that should not be there, too."""

_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainReport:
    """`length` events hold, the last with `head_hash`. `broken_at`: the first sequence that does not, and why.

    A whole chain has `broken_at` and `problem` None. A cut end breaks at the first missing sequence.
    """

    length: int
    head_hash: str
    broken_at: int | None
    problem: str | None


class _Broken(Exception):
    """The event looked at does not hold; the text says why."""


@dataclass(slots=True)
class _Walk:
    """How far the proof has come."""

    length: int
    head_hash: str

    def report(self, problem: str | None = None) -> ChainReport:
        broken_at = None if problem is None else self.length + 1
        return ChainReport(length=self.length, head_hash=self.head_hash, broken_at=broken_at, problem=problem)


def verify_chain(path: str | Path, *, since: ChainReport | None = None) -> ChainReport:
    """Prove the chain in the SQLite file at `path`; it may be in use.

    `since`: an earlier report of the same chain. Then only its last event and what came after are looked at, so that
    a change further back is not found: do a whole proof now and then. An earlier report that was broken is ignored.
    An unreadable database is a broken chain, with the database's words as the problem; nothing is raised.
    """
    path = Path(path)
    trusted = since is not None and since.broken_at is None and since.length > 0
    walk = _Walk(since.length - 1, "") if trusted and since is not None else _Walk(0, _FIRST_PREVIOUS)
    # The remembered head is read before the events: read after them it could already be a later one.
    remembered, head_problem = _remembered_head(path.with_name(_HEAD_FILE))
    try:
        for row in _rows(path, walk.length if trusted else _LEAST):
            _step(walk, row, since if trusted else None)
            if remembered is not None and walk.length == remembered[0] and walk.head_hash != remembered[1]:
                walk.length -= 1
                raise _Broken(f"event {remembered[0]} has another hash than {_HEAD_FILE} remembers")
    except _Broken as broken:
        return walk.report(str(broken))
    except (sqlite3.Error, UnicodeError, RecursionError) as error:
        return walk.report(f"unreadable: {error}")
    if trusted and since is not None and walk.length < since.length:
        return walk.report(f"the chain ended at event {since.length} before and is shorter now")
    return walk.report(_cut(walk, remembered, head_problem))


def _cut(walk: _Walk, remembered: tuple[int, str] | None, head_problem: str | None) -> str | None:
    """Why the end of the chain is not the end that was written."""
    if remembered is not None and remembered[0] > walk.length:
        return f"the chain ends at event {walk.length}, {_HEAD_FILE} remembers event {remembered[0]}"
    return head_problem


def _remembered_head(path: Path) -> tuple[tuple[int, str] | None, str | None]:
    """The remembered (sequence, hash), None when there is no usable one; and what is wrong with it."""
    try:
        content = path.read_bytes()
        while content != (again := path.read_bytes()):  # the writer was writing: both halves must be of one time
            content = again
        words = content[:200].decode("ascii").split()
        return (int(words[0]), words[1]), None
    except FileNotFoundError:
        return None, f"{_HEAD_FILE} is missing: a cut end could not be seen"
    except (OSError, ValueError, IndexError) as error:
        return None, f"{_HEAD_FILE} is unreadable: {error}"


def _rows(path: Path, after: int) -> Iterator[tuple[Any, ...]]:
    connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=5)
    # What is no UTF-8 must fail at its own event: Python 3.10 reads a row ahead, and would fail at the one before.
    connection.text_factory = lambda content: content.decode("utf-8", "surrogateescape")
    try:
        yield from connection.execute(f"SELECT {_COLUMNS} FROM events WHERE sequence > ? ORDER BY sequence", (after,))  # noqa: S608
    finally:
        connection.close()


def _step(walk: _Walk, row: tuple[Any, ...], since: ChainReport | None) -> None:
    """Prove one event and go on to it. Raises `_Broken`."""
    sequence, previous_hash, told_hash = row[0], row[9], row[10]
    if sequence != walk.length + 1:
        raise _Broken(f"event {walk.length + 1} is missing: event {sequence} comes next")
    first_of_since = since is not None and sequence == since.length
    if not first_of_since and previous_hash != walk.head_hash:
        raise _Broken(f"event {sequence} does not follow event {walk.length}: its previous hash is another")
    if hashlib.sha256(_body(row)).hexdigest() != told_hash:
        raise _Broken(f"event {sequence} was changed: its content does not give its hash")
    if first_of_since and since is not None and told_hash != since.head_hash:
        raise _Broken(f"event {sequence} is another than the one proven before")
    walk.length, walk.head_hash = sequence, told_hash


def _body(row: tuple[Any, ...]) -> bytes:
    """The bytes that the hash covers, written out by hand: the names stand in sorted order."""
    sequence, at_ms, actor, principal, request_id, kind, service, revision, detail, previous_hash, _ = row
    for name, value, allowed in (
        ("at_ms", at_ms, (int,)),
        ("actor", actor, (str,)),
        ("principal", principal, (str,)),
        ("request_id", request_id, (str, type(None))),
        ("kind", kind, (str,)),
        ("service", service, (str, type(None))),
        ("revision", revision, (int, type(None))),
        ("detail", detail, (str,)),
        ("previous_hash", previous_hash, (str,)),
    ):
        if type(value) not in allowed:
            raise _Broken(f"event {sequence} was changed: {name} is {repr(value)[:_SHOWN_CHARACTERS]}")
    text = (
        f'{{"actor":{_quoted(actor)},"at_ms":{at_ms},"detail":{_same_detail(sequence, detail)},"kind":{_quoted(kind)},'
        f'"previous_hash":{_quoted(previous_hash)},"principal":{_quoted(principal)},"request_id":{_json(request_id)},'
        f'"revision":{_json(revision)},"sequence":{sequence},"service":{_json(service)}}}'
    )
    return text.encode("utf-8")


def _same_detail(sequence: int, detail: str) -> str:
    """The detail, once it is shown to be canonical: otherwise a changed byte could leave the meaning, and the hash."""
    try:
        rewritten = _json(json.loads(detail))
    except ValueError as error:
        raise _Broken(f"event {sequence} was changed: its detail is not JSON ({error})") from None
    if rewritten != detail:
        raise _Broken(f"event {sequence} was changed: its detail is not canonical JSON")
    return detail


def _json(value: Any) -> str:
    """RFC 8785, the verifier's own."""
    kind = type(value)
    if kind is str:
        return _quoted(value)
    if kind is dict:
        pairs = sorted(value.items(), key=lambda pair: pair[0].encode("utf-16-be"))
        return "{" + ",".join([f"{_quoted(name)}:{_json(item)}" for name, item in pairs]) + "}"
    if kind is list:
        return "[" + ",".join([_json(item) for item in value]) + "]"
    if kind is int and -_EXACT < value < _EXACT:
        return str(value)
    if kind is int and abs(value) < 10**21:  # a double without a fraction: JSON does not tell the two apart
        return _number(float(value))
    if kind is float:
        return _number(value)
    if value is None or kind is bool:
        return {None: "null", True: "true", False: "false"}[value]
    raise ValueError(f"{repr(value)[:_SHOWN_CHARACTERS]} is no exact JSON number")


def _number(value: float) -> str:
    """ECMAScript's spelling, made from Python's: `1e+16` → `10000000000000000`, `1e-07` → `1e-7`, `2.0` → `2`."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is no JSON number")
    mantissa, _, power = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = fraction.rstrip("0")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return "0"
    exponent = int(power or 0) + len(whole) - 1 - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    sign = "-" if value < 0 else ""
    if exponent > 20 or exponent < -6:
        tail = "." + digits[1:] if digits[1:] else ""
        return f"{sign}{digits[0]}{tail}e{'+' if exponent > 0 else '-'}{abs(exponent)}"
    if exponent < 0:
        return f"{sign}0.{digits.rjust(len(digits) - exponent - 1, '0')}"
    padded = digits.ljust(exponent + 1, "0")
    return sign + padded[: exponent + 1] + ("." + padded[exponent + 1 :] if padded[exponent + 1 :] else "")


def main(arguments: list[str]) -> int:
    """Print the report of one chain as JSON; 0 when it holds, 3 when not, 2 for wrong arguments."""
    if len(arguments) != 1:
        print("usage: python -m gonogo.security.verify DATABASE_FILE", file=sys.stderr)
        return 2
    report = verify_chain(arguments[0])
    print(json.dumps(asdict(report)))
    return 0 if report.broken_at is None else 3


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

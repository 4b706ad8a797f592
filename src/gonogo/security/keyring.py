"""The file of the keys that seal values at rest: made, read, counted, rotated. The newest key seals, all of them open.

The file is JSON, mode 0600, in the state directory; several processes share it. A process takes leave to seal a block
of messages before it does, so that the bound of `sealing.MOST_MESSAGES` holds over all processes and restarts; a key
that comes near it is followed by a new one by itself.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import stat
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Iterator

from gonogo.security.sealing import (
    KEY_BYTES,
    KEY_ID_BYTES,
    MOST_MESSAGES,
    NONCE_BYTES,
    DataKey,
    UnknownKey,
    key_id_of,
    seal,
    unseal,
)

NAME = "keyring.json"
BLOCK = 2**16
"""Messages for which a process takes leave at once: 65,536 processes may do so before a key is used up."""
_FORMAT = 1


class KeyFileError(Exception):
    """The key file cannot be used. The text says what was seen and what to do; it never holds a key."""


class Keyring:
    """Seals and opens values with the keys of one file. Safe to use from several threads and processes at once.

    `clock` gives Unix seconds; `random` gives that many random bytes. Raises `KeyFileError` on first use.
    """

    def __init__(
        self, path: Path, *, clock: Callable[[], float], random: Callable[[int], bytes] = os.urandom, block: int = BLOCK
    ) -> None:
        self._path, self._clock, self._random, self._block = path, clock, random, block
        self._guard = threading.Lock()
        self._keys: dict[str, DataKey] = {}
        self._active: DataKey | None = None
        self._left = 0
        self._file = -1

    def seal(self, value: bytes, bound_to: bytes) -> bytes:
        """The envelope of `value`, bound to its place (`sealing.place`). Raises `KeyFileError`."""
        with self._guard:
            if self._active is None or self._left == 0 or self._followed():
                self._take_leave()
            self._left -= 1
            key = self._active
        assert key is not None
        return seal(key, self._random(NONCE_BYTES), value, bound_to)

    def open(self, sealed: bytes, bound_to: bytes) -> bytes:
        """The value. Raises a `sealing.SealError` for what does not open, `KeyFileError`."""
        key_id = key_id_of(sealed)
        key = self._keys.get(key_id)
        if key is None:
            with self._guard:
                self._learn(self._read())  # another process may have made a new one
                key = self._keys.get(key_id)
        if key is None:
            raise UnknownKey(key_id, len(self._keys))
        return unseal(key, sealed, bound_to)

    def rotate(self) -> str:
        """A new key seals from now on, in every process; gives its id."""
        with self._guard, self._locked():
            keys = [*self._read(), self._made()]
            self._write(keys)
            self._learn(keys)
            self._active, self._left = None, 0
        return keys[-1].key_id

    def _followed(self) -> bool:
        """Whether another process has made a newer key: the file is replaced whenever it changes."""
        try:
            file = self._path.stat().st_ino
        except OSError as error:
            raise _unusable(self._path, error) from error
        if file == self._file:
            return False
        self._file = file
        keys = self._read()
        return not keys or self._active is None or keys[-1].key_id != self._active.key_id

    def _take_leave(self) -> None:
        with self._locked():
            keys = self._read()
            if not keys or keys[-1].messages + self._block > MOST_MESSAGES:
                keys.append(self._made())
            keys[-1] = replace(keys[-1], messages=keys[-1].messages + self._block)
            self._write(keys)
        self._learn(keys)
        self._active, self._left = keys[-1], self._block

    def _learn(self, keys: list[DataKey]) -> None:
        self._keys = {key.key_id: key for key in keys}

    def _made(self) -> DataKey:
        key_id = self._random(KEY_ID_BYTES).hex()
        return DataKey(key_id=key_id, secret=self._random(KEY_BYTES), made_at=self._clock(), messages=0)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time changes the file: it is replaced, so the lock is on another one beside it."""
        try:
            descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self._path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> list[DataKey]:
        """Every key, oldest first; none where there is no file yet."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unusable(self._path, error) from error
        with open(descriptor, "rb") as file:
            _require_private(self._path, os.fstat(descriptor))
            return _parsed(self._path, file.read())

    def _write(self, keys: list[DataKey]) -> None:
        """All of it or nothing, also through a power cut: a key that sealed something must never be lost."""
        fresh = self._path.with_suffix(".new")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(_text(keys))
                file.flush()
                os.fsync(descriptor)
            fresh.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise _unusable(self._path, error) from error


def _require_private(path: Path, seen: os.stat_result) -> None:
    if seen.st_uid != os.getuid():
        raise KeyFileError(f"{path} belongs to user {seen.st_uid}, not to {os.getuid()}: it must be this user's own")
    if seen.st_mode & 0o077:
        raise KeyFileError(
            f"{path} has mode {stat.S_IMODE(seen.st_mode):o}, so others may have read the keys in it: "
            f"`chmod 600 {path}`, and then `gonogo tasks rotate-key`"
        )


def _parsed(path: Path, data: bytes) -> list[DataKey]:
    try:
        content = json.loads(data)
        if content["format"] != _FORMAT:
            raise KeyFileError(
                f"{path} has format {content['format']!r}, this gonogo knows {_FORMAT}: use the newer one"
            )
        return [_key(one) for one in content["keys"]]
    except (ValueError, KeyError, TypeError) as error:
        raise KeyFileError(f"{path} is no key file ({type(error).__name__}): put back a copy of it") from None


def _key(one: Any) -> DataKey:
    secret = base64.b64decode(one["key"], validate=True)
    if len(secret) != KEY_BYTES or len(bytes.fromhex(one["id"])) != KEY_ID_BYTES:
        raise ValueError("a key of another length")
    return DataKey(key_id=one["id"], secret=secret, made_at=float(one["made_at"]), messages=int(one["messages"]))


def _text(keys: list[DataKey]) -> bytes:
    rows = [
        {
            "id": key.key_id,
            "key": base64.b64encode(key.secret).decode(),
            "made_at": key.made_at,
            "messages": key.messages,
        }
        for key in keys
    ]
    return json.dumps({"format": _FORMAT, "keys": rows}, indent=1).encode() + b"\n"


def _unusable(path: Path, error: OSError) -> KeyFileError:
    return KeyFileError(
        f"{path} cannot be used ({error.strerror}): it must be a file that this user may read and write"
    )

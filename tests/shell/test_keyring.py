"""The key file: who may read it, how it grows, and that two processes never lose each other's keys."""

from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gonogo.security import keyring as module
from gonogo.security.keyring import KeyFileError, Keyring
from gonogo.security.sealing import NotAuthentic, UnknownKey, key_id_of, place

HERE, THERE = place("tasks", "1", "prompt"), place("tasks", "2", "prompt")


def ring(folder: Path, block: int = 4) -> Keyring:
    return Keyring(folder / "keyring.json", clock=lambda: 5.0, block=block)


def rows(folder: Path) -> list[dict[str, object]]:
    return list(json.loads((folder / "keyring.json").read_text())["keys"])


def test_the_file_is_made_for_its_owner_alone_and_another_keyring_opens_what_one_sealed(tmp_path: Path) -> None:
    sealed = ring(tmp_path).seal(b"prompt", HERE)
    assert stat.S_IMODE((tmp_path / "keyring.json").stat().st_mode) == 0o600
    assert b"prompt" not in sealed
    assert ring(tmp_path).open(sealed, HERE) == b"prompt"
    with pytest.raises(NotAuthentic):
        ring(tmp_path).open(sealed, THERE)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_may_read_is_refused_with_what_to_do(tmp_path: Path, mode: int) -> None:
    sealed = ring(tmp_path).seal(b"prompt", HERE)
    (tmp_path / "keyring.json").chmod(mode)
    for act in (lambda: ring(tmp_path).open(sealed, HERE), lambda: ring(tmp_path).seal(b"x", HERE)):
        with pytest.raises(KeyFileError, match=f"mode {mode:o}.*chmod 600"):
            act()


def test_after_a_rotation_old_values_open_and_new_ones_have_the_new_key(tmp_path: Path) -> None:
    one = ring(tmp_path)
    old = one.seal(b"old", HERE)
    fresh = one.rotate()
    new = one.seal(b"new", HERE)
    assert key_id_of(new) == fresh != key_id_of(old)
    assert (one.open(old, HERE), one.open(new, HERE)) == (b"old", b"new")


def test_a_rotation_counts_in_every_process_at_once(tmp_path: Path) -> None:
    mine, other = ring(tmp_path, block=1000), ring(tmp_path, block=1000)
    before = {key_id_of(one.seal(b"x", HERE)) for one in (mine, other)}
    fresh = other.rotate()
    assert len(before) == 1 and key_id_of(mine.seal(b"x", HERE)) == fresh


def test_a_process_learns_of_the_key_that_another_one_made(tmp_path: Path) -> None:
    mine, other = ring(tmp_path), ring(tmp_path)
    mine.seal(b"x", HERE)
    other.rotate()
    assert mine.open(other.seal(b"theirs", HERE), HERE) == b"theirs"


def test_a_key_is_followed_by_another_before_it_has_sealed_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_MESSAGES", 10)
    one = ring(tmp_path, block=4)
    used = [key_id_of(one.seal(b"x", HERE)) for _ in range(20)]
    counts = [len(list(group)) for _, group in itertools.groupby(used)]
    assert counts == [8, 8, 4], "two blocks of 4 fit under 10, a third does not"
    assert [row["messages"] for row in rows(tmp_path)] == [8, 8, 4]


def test_a_restarted_process_does_not_count_from_the_start(tmp_path: Path) -> None:
    for _ in range(3):
        ring(tmp_path, block=4).seal(b"x", HERE)
    assert [row["messages"] for row in rows(tmp_path)] == [12]


def test_an_unknown_key_and_a_broken_file_say_so(tmp_path: Path) -> None:
    one = ring(tmp_path)
    sealed = one.seal(b"x", HERE)
    (tmp_path / "keyring.json").unlink()
    with pytest.raises(UnknownKey, match=key_id_of(sealed)):
        ring(tmp_path).open(sealed, HERE)
    for text in ("", "{}", '{"format": 1, "keys": [{"id": "00", "key": "!"}]}', "[]"):
        (tmp_path / "keyring.json").write_text(text)
        (tmp_path / "keyring.json").chmod(0o600)
        with pytest.raises(KeyFileError, match="no key file"):
            ring(tmp_path).seal(b"x", HERE)
    (tmp_path / "keyring.json").write_text('{"format": 2}')
    with pytest.raises(KeyFileError, match="format 2"):
        ring(tmp_path).seal(b"x", HERE)


def test_processes_that_begin_at_once_share_one_first_key(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from gonogo.security.keyring import Keyring\n"
        "ring = Keyring(Path(sys.argv[1]) / 'keyring.json', clock=lambda: 0.0, block=4)\n"
        "print([ring.seal(b'x', b'')[2:10].hex() for _ in range(9)])"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(4)]
    told = {one.communicate(timeout=60)[0] for one in running}
    assert [row["messages"] for row in rows(tmp_path)] == [4 * 12]
    assert len(told) == 1

"""Files in sealed pieces: whole or not at all, and no cut, swapped or lengthened one reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.security.keyring import Keyring
from gonogo.security.sealing import SealError
from gonogo.tasks.vault import PIECE_BYTES, Vault, lines


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "files", Keyring(tmp_path / "keyring.json", clock=lambda: 0.0))


def keep(vault: Vault, name: str, content: bytes) -> None:
    with vault.write(name) as writing:
        writing.add(content)
        writing.finish()


def test_what_is_not_finished_is_not_there_and_what_is_left_over_is_swept(vault: Vault, tmp_path: Path) -> None:
    with vault.write("a") as writing:
        writing.add(b"x" * (PIECE_BYTES + 1))
    assert list((tmp_path / "files").iterdir()) == []
    keep(vault, "known", b"1")
    keep(vault, "orphan", b"2")
    (tmp_path / "files" / "died.part").write_bytes(b"half")
    assert vault.sweep(frozenset({"known"}), older_than=0.0) == 0
    assert vault.sweep(frozenset({"known"}), older_than=9e12) == 2
    assert b"".join(vault.read("known")) == b"1"


def test_pieces_that_are_cut_swapped_doubled_or_of_another_file_do_not_read(vault: Vault, tmp_path: Path) -> None:
    content = bytes(3 * PIECE_BYTES)
    keep(vault, "f", content)
    keep(vault, "other", content)
    path = tmp_path / "files" / "f"
    whole = path.read_bytes()
    record = len(whole) // 3
    pieces = [whole[at : at + record] for at in range(0, len(whole), record)]
    wrong = {
        "last piece gone": pieces[:2],
        "first piece gone": pieces[1:],
        "swapped": [pieces[1], pieces[0], pieces[2]],
        "doubled": [pieces[0], *pieces],
        "lengthened": [*pieces, pieces[2]],
        "cut within": [whole[:-1]],
        "cut in a length": [*pieces, b"\0\0"],
        "a length of gigabytes": [b"\xff\xff\xff\xff", whole],
        "nothing": [],
        "another file's": [(tmp_path / "files" / "other").read_bytes()],
    }
    for name, parts in wrong.items():
        path.write_bytes(b"".join(parts))
        with pytest.raises(SealError):
            list(vault.read("f"))
            pytest.fail(f"{name}: it was read")
    path.write_bytes(whole)
    assert b"".join(vault.read("f")) == content


@given(
    st.lists(st.binary(max_size=40).map(lambda one: one.replace(b"\n", b"")), max_size=8),
    st.integers(1, 9),
    st.booleans(),
)
def test_lines_are_the_same_however_the_pieces_fall_and_a_long_one_is_none(
    given_lines: list[bytes], size: int, ends: bool
) -> None:
    text = b"\n".join(given_lines) + (b"\n" if ends and given_lines else b"")
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    expected = text.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert list(lines(iter(pieces), 20)) == [one if len(one) <= 20 else None for one in expected]

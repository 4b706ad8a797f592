"""Locks: what is written is read again, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.facts.environment import HostLimits, PythonAtHand
from gonogo.facts.environment_lock import (
    ChosenWheel,
    Lock,
    LockedPackage,
    LockUnreadable,
    parse_environment_lock,
    parse_wheels,
    render_lock,
    wheel_tags,
)

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
names = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,8}){0,2}", fullmatch=True)
packages = st.dictionaries(
    names,
    st.tuples(
        st.sampled_from(["1.0", "2.13.0+cpu", "0.5.6.post1", "5.0.0rc0"]),
        st.lists(digests, min_size=1, max_size=3, unique=True),
        st.none() | st.integers(1, 10**10),
    ),
    max_size=8,
)
ENGINE = LockedPackage(name="vllm", version="0.33.0", hashes=("a" * 64,), size_bytes=7)


def lock(*more: LockedPackage) -> Lock:
    return Lock(
        engine="vllm", package="vllm", version="0.33.0", python="3.12", machine="x86_64", glibc="2.28",
        packages=(ENGINE, *more),
    )  # fmt: skip


@given(packages)
def test_a_lock_is_read_as_it_was_written(found: dict[str, tuple[str, list[str], int | None]]) -> None:
    more = [
        LockedPackage(name=name, version=version, hashes=tuple(hashes), size_bytes=size)
        for name, (version, hashes, size) in found.items()
        if name != "vllm"
    ]
    made = lock(*more)

    again = parse_environment_lock(render_lock(made))

    assert again.digest == made.digest
    assert {one.name: sorted(one.hashes) for one in again.packages} == {
        one.name: sorted(one.hashes) for one in made.packages
    }
    assert again.download_bytes == made.download_bytes


@given(st.integers(0, 400), st.sampled_from("x0\n"))
def test_a_lock_with_one_letter_changed_is_refused_or_another_one(place: int, letter: str) -> None:
    text = render_lock(lock())
    changed = text[: place % len(text)] + letter + text[place % len(text) + 1 :]
    if changed == text:
        return
    try:
        read = parse_environment_lock(changed)
    except LockUnreadable:
        return
    assert read.digest != lock().digest


def test_the_order_of_packages_does_not_change_the_address() -> None:
    other = LockedPackage(name="torch", version="2.14.0", hashes=("b" * 64, "c" * 64))
    turned = replace(other, hashes=("c" * 64, "b" * 64))
    assert lock(other).digest == replace(lock(), packages=(turned, ENGINE)).digest


@pytest.mark.parametrize(
    ("changes", "misfit"),
    [
        ({}, None),
        ({"machine": "aarch64"}, ("machine", "x86_64", "aarch64")),
        ({"glibc": "2.17"}, ("glibc", ">=2.28", "2.17")),
        ({"pythons": ()}, ("python", "3.12", "-")),
        ({"machine": None, "glibc": None}, None),
    ],
)
def test_a_lock_says_for_which_host_it_is(changes: dict[str, object], misfit: tuple[str, str, str] | None) -> None:
    pythons = (PythonAtHand(version="3.12.3", path="/p"),)
    host = replace(HostLimits(machine="x86_64", glibc="2.36", pythons=pythons), **changes)  # type: ignore[arg-type]
    assert lock().misfits(host) == misfit


def test_wheels_are_read_with_their_size_and_the_c_library_that_they_need() -> None:
    text = (
        'wheels = [{ url = "https://index.example/p/torch-2.13.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl", '
        'upload-time = 2026-10-10T15:54:40Z, size = 33827498, hashes = { sha256 = "' + "a" * 64 + '" } }]\n'
        'wheels = [{ path = "w/x-1-cp310-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", '
        'hashes = { sha256 = "' + "b" * 64 + '" } }]\n'
        'wheels = [{ path = "w/six-1.0-py3-none-any.whl", hashes = { sha256 = "' + "c" * 64 + '" } }]\n'
    )
    found = parse_wheels(text)
    assert [(one.size_bytes, one.glibc) for one in found.values()] == [(33827498, "2.28"), (None, "2.17"), (None, None)]


@pytest.mark.parametrize(
    ("python", "glibc", "best"),
    [
        ("3.12", "2.36", "a-1-cp312-cp312-manylinux_2_28_x86_64.whl"),
        ("3.12.3", "2.27", "a-1-cp312-cp312-manylinux2014_x86_64.whl"),
        ("3.13", "2.36", "a-1-cp313-cp313-manylinux_2_28_x86_64.whl"),
        ("3.14", "2.36", "a-1-cp38-abi3-manylinux_2_31_x86_64.whl"),
        ("3.14", "2.28", "a-1-py3-none-any.whl"),
    ],
)
def test_the_wheel_that_fits_python_and_c_library_best_is_chosen(python: str, glibc: str, best: str) -> None:
    files = (
        "a-1-cp312-cp312-manylinux_2_28_x86_64.whl",
        "a-1-cp312-cp312-manylinux2014_x86_64.whl",
        "a-1-cp313-cp313-manylinux_2_28_x86_64.whl",
        "a-1-cp312-cp312-manylinux_2_28_aarch64.whl",
        "a-1-cp38-abi3-manylinux_2_31_x86_64.whl",
        "a-1-py3-none-any.whl",
        "a-1-cp312-cp312-win_amd64.whl",
        "no wheel.whl",
    )
    tags = wheel_tags(python, "x86_64", glibc)
    ranked = {file: ChosenWheel(file=file, size_bytes=None).rank(tags) for file in files}
    fitting = {rank: file for file, rank in ranked.items() if rank is not None}
    assert fitting[min(fitting)] == best

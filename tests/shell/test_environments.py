"""Environments for real: uv, an index on loopback with wheels that the tests make, and what goes wrong on the way."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
import threading
import time
from pathlib import Path
from typing import Iterator

import pytest

from gonogo.facts.environment_lock import parse_environment_lock, render_lock
from gonogo.runtimes import environment_building
from gonogo.runtimes.environments import MARKER, EnvironmentStore
from tests.shell.command_line import Ran, command, environment, gonogo
from tests.shell.package_index import ENGINE, VERSION, Index, serve, wheel

LIMIT_S = 60.0


@pytest.fixture
def index() -> Iterator[Index]:
    made = Index()
    made.add(wheel())
    yield from serve(made)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def env(state: Path, index: Index, cache: Path, *words: str, **more: str) -> Ran:
    return gonogo(state, "env", *words, env=index.environment(cache, **more))


def environments(state: Path) -> EnvironmentStore:
    return EnvironmentStore(state / "environments")


def left_overs(state: Path) -> list[str]:
    """Whatever lies there besides locks, the cache, the log and whole environments."""
    known = {"locks", "cache", "uv.log", *(made.name for made in environments(state).all())}
    entries = sorted((state / "environments").iterdir()) if (state / "environments").exists() else []
    return [one.name for one in entries if one.name not in known and not one.name.endswith(".lock")]


def made_lock(state: Path, index: Index, cache: Path) -> Path:
    return Path(env(state, index, cache, "lock", "llama.cpp").out.strip())


def test_an_environment_is_made_from_its_lock_and_its_engine_answers(state: Path, index: Index, cache: Path) -> None:
    ran = env(state, index, cache, "create", "llama.cpp", "--json")

    assert ran.code == 0, ran.err
    made = ran.json["environment"]
    assert (made["engine"], made["answered"], ran.json["made"]) == ("llama.cpp", VERSION, True)
    asked = (made["python_path"], "-c", f"import {ENGINE}, sys; print({ENGINE}.__version__, sys.prefix)")
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    assert said == [VERSION, made["path"]]
    assert left_overs(state) == []


def test_the_second_time_it_is_found_and_nothing_is_fetched(state: Path, index: Index, cache: Path) -> None:
    env(state, index, cache, "create", "llama.cpp")
    index.asked.clear()

    ran = env(state, index, cache, "create", "llama.cpp", "--json")

    assert (ran.code, ran.json["made"], index.asked) == (0, False, [])


def test_a_lock_has_hashes_and_names_no_host(state: Path, index: Index, cache: Path) -> None:
    path = made_lock(state, index, cache)
    text = path.read_text()

    assert path.stem == parse_environment_lock(text).digest
    assert "127.0.0.1" not in text and "://" not in text
    assert text.count("--hash=sha256:") == 1


def test_the_same_packages_have_the_same_address_wherever_they_are_locked(
    state: Path, index: Index, cache: Path, tmp_path: Path
) -> None:
    other = Index(wheels=dict(index.wheels))
    for mirror in serve(other):
        here = made_lock(state, index, cache)
        there = made_lock(tmp_path / "other", mirror, tmp_path / "other-cache")
        assert here.name == there.name


def test_a_changed_file_an_added_package_and_an_unknown_start_up_file_are_drift(
    state: Path, index: Index, cache: Path
) -> None:
    made = env(state, index, cache, "create", "llama.cpp", "--json").json["environment"]
    assert env(state, index, cache, "check", "llama.cpp").code == 0
    packages = next(Path(made["path"]).glob("lib/python3*/site-packages"))
    (packages / ENGINE / "__init__.py").write_text("__version__ = 'patched'\n")
    (packages / "litellm_init.pth").write_text("import os; os.getenv('HOME')\n")
    (packages / "other-1.0.dist-info").mkdir()
    (packages / "other-1.0.dist-info" / "METADATA").write_text("Name: other\nVersion: 1.0\n")

    ran = env(state, index, cache, "check", "llama.cpp", "--json")

    found = {one["reason"]: one for one in ran.json["findings"]}
    assert ran.code == 3
    assert set(found) == {"EnvironmentChanged", "StartupFileUnknown"}
    assert f"{ENGINE}/__init__.py (changed)" in found["EnvironmentChanged"]["values"]["files"]
    assert "other==1.0 (added)" in found["EnvironmentChanged"]["values"]["files"]
    assert found["StartupFileUnknown"]["values"]["files"] == "litellm_init.pth"


def test_a_wheel_with_another_content_than_the_locked_one_is_not_installed(
    state: Path, index: Index, cache: Path, tmp_path: Path
) -> None:
    lock = made_lock(state, index, cache)
    file = next(iter(index.wheels))
    index.swapped[file] = wheel(files={f"{ENGINE}/__init__.py": b"__version__ = 'evil'\n"})[1]

    ran = env(state, index, tmp_path / "fresh", "create", "--lock", str(lock), "--json")

    assert (ran.code, ran.json["error"]["reason"]) == (4, "WheelHashWrong")
    assert environments(state).all() == () and left_overs(state) == []


def test_a_release_that_the_index_has_not_is_named(state: Path, index: Index, cache: Path) -> None:
    ran = env(state, index, cache, "create", "llama.cpp", "--version", "2026.9.11063", "--json")

    assert (ran.code, ran.json["error"]["reason"]) == (4, "VersionNotThere")
    assert "2026.9.11063" in ran.json["error"]["message"]


def test_an_index_that_is_away_fails_in_time_and_says_what_else_there_is(
    state: Path, index: Index, cache: Path
) -> None:
    began = time.monotonic()

    ran = env(state, index, cache, "lock", "llama.cpp", "--json", UV_DEFAULT_INDEX="http://127.0.0.1:9/simple")

    assert (ran.code, ran.json["error"]["reason"]) == (4, "IndexUnreachable")
    assert "--bundle" in ran.json["error"]["remedy"]
    assert time.monotonic() - began < LIMIT_S / 2


def test_an_index_that_never_sends_a_wheel_is_given_up(state: Path, index: Index, cache: Path) -> None:
    lock = made_lock(state, index, cache)
    index.hold = threading.Event()

    ran = env(state, index, cache.with_name("fresh"), "create", "--lock", str(lock), "--json", UV_HTTP_TIMEOUT="1")

    assert (ran.code, ran.json["error"]["reason"]) == (4, "IndexUnreachable")
    assert environments(state).all() == () and left_overs(state) == []


def test_what_was_fetched_before_the_index_failed_is_not_fetched_again(state: Path, index: Index, cache: Path) -> None:
    index.wheels.clear()
    other = wheel("other-part", "1.0")
    index.add(wheel(requires=("other-part==1.0",)), other)
    fetched = threading.Event()
    index.broken[other[0]] = fetched
    watcher = threading.Thread(
        target=lambda: (until(lambda: list(cache.glob(f"archive-v0/*/{ENGINE}"))), fetched.set())
    )
    watcher.start()
    first = env(state, index, cache, "create", "llama.cpp", "--json")
    watcher.join(LIMIT_S)
    index.broken.clear()
    index.asked.clear()

    ran = env(state, index, cache, "create", "llama.cpp", "--json")

    assert (first.code, first.json["error"]["reason"]) == (4, "IndexUnreachable")
    assert (ran.code, index.fetched) == (0, [f"/files/{other[0]}"])


def test_an_index_that_wants_a_password_is_told_apart_and_ours_is_not_shown(
    state: Path, index: Index, cache: Path
) -> None:
    index.status = 401
    url = index.url.replace("://", "://me:s3cret@")

    ran = env(state, index, cache, "lock", "llama.cpp", "--json", UV_DEFAULT_INDEX=url)

    assert (ran.code, ran.json["error"]["reason"]) == (4, "IndexRefused")
    assert "s3cret" not in ran.out + ran.err


def test_what_this_host_cannot_run_is_refused_before_anything_is_asked(state: Path, index: Index, cache: Path) -> None:
    ran = env(state, index, cache, "create", "phone-agent", "--python", "3.11", "--json")

    assert (ran.code, ran.json["error"]["reason"]) == (3, "VersionsClash")
    assert ran.json["error"]["values"]["kinds"] == ["python", "engine"]
    assert index.asked == []


def test_a_poisoned_release_among_what_is_needed_is_refused_before_it_is_fetched(
    state: Path, index: Index, cache: Path
) -> None:
    index.wheels.clear()
    index.add(wheel(requires=("litellm==1.82.8",)), wheel("litellm", "1.82.8"))

    ran = env(state, index, cache, "create", "llama.cpp", "--json")

    assert (ran.code, ran.json["error"]["reason"]) == (3, "PackagePoisoned")
    assert "litellm_init.pth" in ran.json["error"]["message"]
    assert environments(state).all() == () and list(environments(state).locks.glob("*")) == []


def test_a_lock_with_a_poisoned_release_is_refused_even_when_somebody_else_made_it(
    state: Path, index: Index, cache: Path
) -> None:
    index.wheels.clear()
    index.add(wheel(requires=("litellm==1.82.6",)), wheel("litellm", "1.82.6"))
    lock = made_lock(state, index, cache)
    other = lock.with_name("other.lock")
    other.write_text(lock.read_text().replace("litellm==1.82.6", "litellm==1.82.7"))

    ran = env(state, index, cache, "create", "--lock", str(other), "--json")

    assert (ran.code, ran.json["error"]["reason"]) == (3, "PackagePoisoned")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"raise ImportError('libcudart.so.13: cannot open shared object file')\n", "EngineAnswersNot"),
        (b"__version__ = '0.2.14'\n", "EngineAnswersOther"),
        (b"import os, signal; os.kill(os.getpid(), signal.SIGILL)\n", "EngineAnswersNot"),
    ],
)
def test_an_engine_that_does_not_answer_right_leaves_no_environment(
    state: Path, index: Index, cache: Path, source: bytes, reason: str
) -> None:
    index.wheels.clear()
    index.add(wheel(files={f"{ENGINE}/__init__.py": source}))

    ran = env(state, index, cache, "create", "llama.cpp", "--json")

    assert (ran.code, ran.json["error"]["reason"]) == (4, reason)
    assert environments(state).all() == () and left_overs(state) == []


def test_a_lock_for_another_machine_c_library_or_python_is_refused(state: Path, index: Index, cache: Path) -> None:
    lock = parse_environment_lock(made_lock(state, index, cache).read_text())
    index.asked.clear()
    for part, value in (("machine", "aarch64"), ("glibc", "9.99"), ("python", "3.99")):
        fields = {name: getattr(lock, name) for name in lock.__slots__}
        other = state / f"{part}.lock"
        other.write_text(render_lock(type(lock)(**{**fields, part: value})))

        ran = env(state, index, cache, "create", "--lock", str(other), "--json")

        assert (ran.code, ran.json["error"]["reason"]) == (3, "LockForeign"), part
        assert (ran.json["error"]["values"]["part"], value in ran.json["error"]["message"]) == (part, True)
    assert index.asked == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("--hash=sha256:", "--hash=md5:"),
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace("# gonogo-lock 1", "# gonogo-lock 2"),
        lambda text: text + "more==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n",
        lambda text: text.replace("llama.cpp", "../../etc"),
    ],
)  # fmt: skip
def test_a_lock_that_was_changed_is_not_used(state: Path, index: Index, cache: Path, damage: object) -> None:
    lock = made_lock(state, index, cache)
    damaged = lock.with_name("damaged.lock")
    damaged.write_text(damage(lock.read_text()))  # type: ignore[operator]

    ran = env(state, index, cache, "create", "--lock", str(damaged), "--json")

    assert (ran.code, ran.json["error"]["reason"]) == (2, "LockUnreadable")


def test_a_bundle_makes_the_same_environment_without_an_index(
    state: Path, index: Index, cache: Path, tmp_path: Path
) -> None:
    file = tmp_path / "llama.tar"
    ran = env(state, index, cache, "bundle", "llama.cpp", "-o", str(file), "--json")
    assert (ran.code, ran.json["wheels"]) == (0, 1), ran.out + ran.err
    here = env(state, index, cache, "create", "llama.cpp", "--json").json["environment"]["name"]
    index.asked.clear()

    ran = gonogo(
        tmp_path / "other", "env", "create", "--bundle", str(file), "--json", env={"UV_CACHE_DIR": str(tmp_path / "c2")}
    )

    assert ran.code == 0, ran.out + ran.err
    assert ran.json["environment"]["name"] == here
    assert index.asked == []
    assert [one.name for one in (tmp_path / "other/environments").glob(".bundle-*")] == []


def test_wheels_in_a_folder_are_enough_offline(state: Path, index: Index, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, data in index.wheels.items():
        (folder / name).write_bytes(data)

    ran = env(state, index, cache, "create", "llama.cpp", "--wheels", str(folder), "--offline", "--json")

    assert (ran.code, index.asked) == (0, []), ran.out


@pytest.mark.parametrize("fault", ["changed", "outside", "link", "cut"])
def test_a_bundle_that_was_tampered_with_makes_nothing(
    state: Path, index: Index, cache: Path, tmp_path: Path, fault: str
) -> None:
    file, bad = tmp_path / "good.tar", tmp_path / "bad.tar"
    env(state, index, cache, "bundle", "llama.cpp", "-o", str(file))
    _tamper(file, bad, fault)

    other = tmp_path / "other"
    ran = gonogo(other, "env", "create", "--bundle", str(bad), "--json", env={"UV_CACHE_DIR": str(tmp_path / "c2")})

    expected = (4, "WheelHashWrong") if fault == "changed" else (2, "BundleUnreadable")
    assert (ran.code, ran.json["error"]["reason"]) == expected
    assert environments(other).all() == () and left_overs(other) == []
    assert not (tmp_path / "evil").exists()


def _tamper(good: Path, bad: Path, fault: str) -> None:
    if fault == "cut":
        bad.write_bytes(good.read_bytes()[:700])
        return
    with tarfile.open(good) as source, tarfile.open(bad, "w") as target:
        for member in source:
            data = source.extractfile(member)
            if fault == "changed" and member.name.endswith(".whl"):
                other = wheel(files={f"{ENGINE}/__init__.py": b"__version__ = 'evil'\n"})[1]
                member.size = len(other)
                data = io.BytesIO(other)
            target.addfile(member, data)
        extra = tarfile.TarInfo("../evil" if fault == "outside" else "wheels/a-1-py3-none-any.whl")
        if fault == "link":
            extra.type, extra.linkname = tarfile.SYMTYPE, "/etc/passwd"
        if fault in ("outside", "link"):
            target.addfile(extra)


def started(state: Path, index: Index, cache: Path) -> subprocess.Popen[bytes]:
    words = command("env", "create", "llama.cpp", "--yes")
    surroundings = environment(state, **index.environment(cache, UV_HTTP_TIMEOUT="60"))
    return subprocess.Popen(
        words, env=surroundings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def until(happened: object, limit_s: float = LIMIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def building(state: Path) -> list[Path]:
    return list((state / "environments").glob(".building-*"))


@pytest.mark.parametrize("whom", ["all", "gonogo"])
def test_a_build_that_is_killed_half_way_is_not_there_and_the_next_one_makes_it(
    state: Path, index: Index, cache: Path, whom: str
) -> None:
    made_lock(state, index, cache)
    index.hold = threading.Event()
    fresh = cache.with_name("fresh")
    process = started(state, index, fresh)
    before = len(index.fetched)
    until(lambda: building(state) and len(index.fetched) > before)
    if whom == "all":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait(LIMIT_S)

    assert environments(state).all() == () and building(state) != []
    assert env(state, index, fresh, "list", "--json").json["environments"] == []
    index.hold.set()  # an orphaned uv goes on, and holds the lock until it has ended
    ran = env(state, index, fresh, "create", "llama.cpp", "--json")

    assert (ran.code, ran.json["made"]) == (0, True), ran.out + ran.err
    assert building(state) == [] and left_overs(state) == []


def test_what_looks_like_an_environment_and_has_no_marker_is_made_again(state: Path, index: Index, cache: Path) -> None:
    made = Path(env(state, index, cache, "create", "llama.cpp", "--json").json["environment"]["path"])
    (made / MARKER).unlink()
    assert env(state, index, cache, "list", "--json").json["environments"] == []

    ran = env(state, index, cache, "create", "llama.cpp", "--json")

    assert (ran.code, ran.json["made"]) == (0, True)


def test_two_builds_at_once_make_one_environment(state: Path, index: Index, cache: Path) -> None:
    made_lock(state, index, cache)
    index.hold = threading.Event()
    both = [started(state, index, cache.with_name("fresh")) for _ in range(2)]
    until(lambda: len(building(state)) == 1)
    index.hold.set()

    assert [process.wait(LIMIT_S) for process in both] == [0, 0]
    assert len(environments(state).all()) == 1 and left_overs(state) == []


def test_a_disk_that_is_too_small_is_refused_before_anything_is_fetched(
    state: Path, index: Index, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_lock(state, index, cache)
    index.asked.clear()
    monkeypatch.setattr(environment_building, "LEAST_BYTES", 1 << 60)

    ran = env(state, index, cache, "create", "llama.cpp", "--json")

    assert (ran.code, ran.json["error"]["reason"]) == (3, "DiskTooSmall")
    assert index.asked == []


def test_a_disk_that_becomes_full_leaves_nothing(
    tmp_path: Path, index: Index, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    mounting = ("mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(mount))
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        index.wheels.clear()
        big = {
            f"{ENGINE}/__init__.py": f"__version__ = {VERSION!r}\n".encode(),
            f"{ENGINE}/big.bin": os.urandom(12 << 20),
        }
        index.add(wheel(files=big))
        monkeypatch.setattr(environment_building, "LEAST_BYTES", 0)
        monkeypatch.setattr(environment_building, "ROOM_PER_DOWNLOADED", 0)
        monkeypatch.setattr(environment_building, "COPIES", 0)
        state = mount / "state"

        ran = env(state, index, cache, "create", "llama.cpp", "--json")

        assert (ran.code, ran.json["error"]["reason"]) == (4, "DiskFull"), ran.out
        assert environments(state).all() == () and left_overs(state) == []
    finally:
        subprocess.run(("umount", str(mount)), check=True)


def test_removing_takes_one_away_and_keeps_its_lock(state: Path, index: Index, cache: Path) -> None:
    made = env(state, index, cache, "create", "llama.cpp", "--json").json["environment"]

    assert env(state, index, cache, "remove", made["name"], "--yes").code == 0
    assert environments(state).all() == () and left_overs(state) == []
    assert environments(state).lock_path(made["lock"]).exists()
    ran = env(state, index, cache, "remove", made["name"], "--json")
    assert (ran.code, ran.json["error"]["reason"]) == (2, "EnvironmentNotThere")


@pytest.mark.parametrize("place", ["../{}", "../other/{}", "{}/.", "./{}"])
def test_a_name_that_leads_elsewhere_removes_nothing(state: Path, index: Index, cache: Path, place: str) -> None:
    made = Path(env(state, index, cache, "create", "llama.cpp", "--json").json["environment"]["path"])
    outside = state / "other" / made.name
    outside.parent.mkdir()
    made.rename(outside)
    outside.parent.joinpath("environments").mkdir()

    ran = env(state, index, cache, "remove", place.format(made.name), "--yes", "--json")

    assert (ran.code, ran.json["error"]["reason"]) == (2, "EnvironmentNotThere")
    assert (outside / MARKER).exists()


def test_settings_of_pip_count_too(state: Path, index: Index, cache: Path) -> None:
    ran = gonogo(
        state, "env", "lock", "llama.cpp", "--json", env={"PIP_INDEX_URL": index.url, "UV_CACHE_DIR": str(cache)}
    )

    assert ran.code == 0, ran.err
    assert index.asked != []


def test_a_marker_that_is_for_another_place_does_not_count(state: Path, index: Index, cache: Path) -> None:
    made = Path(env(state, index, cache, "create", "llama.cpp", "--json").json["environment"]["path"])
    told = json.loads((made / MARKER).read_text())
    (made / MARKER).write_text(json.dumps({**told, "name": "other"}))

    assert environments(state).all() == ()

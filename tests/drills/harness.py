"""What every drill needs: a deployment that can be broken while it runs, and a strict look at what its checks say.

Not here: the list of drills (`table.py`) and what is broken how (`faults/`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence

import httpx

from gonogo.api.client import ControlClient, ControlRefused
from gonogo.cli.progress import newest_sequence
from gonogo.runtimes.paths import StatePaths
from gonogo.runtimes.programs import gateway_binary
from gonogo.spec import Replicas, Spec
from tests.acceptance.deployment import Deployment, Result, wait_for
from tests.drills.table import DRILLS
from tests.free_ports import free_port

FAULTS = Path(__file__).parent / "faults"
SERVICE = "drill"
JAPAN = "What is the capital of Japan?"
Answers = Sequence[Mapping[str, Any]]
FINE = ("pass", "not_applicable")


def spec(**changes: Any) -> Spec:
    """A small service of the real model: two questions, one thousand tokens, and what a drill says otherwise."""
    fields: dict[str, Any] = {
        "service": SERVICE,
        "model": "smollm2-135m",
        "replicas": {"min": 2, "max": 2},
        "expect": {"concurrent_requests": 2, "context_tokens": 1024},
        "probes": [
            {"name": "japan", "prompt": JAPAN, "expect_pattern": "Tokyo", "max_tokens": 12},
            {
                "kind": "no_leaked_stop_token",
                "name": "ends",
                "prompt": JAPAN,
                "forbidden": ["<|im_end|>"],
                "max_tokens": 12,
            },
        ],
    }
    return Spec.model_validate_json(json.dumps({**fields, **changes}))


def wrong(answers: Answers) -> dict[str, str]:
    """Check → reason of what neither passed nor was out of place."""
    return {one["check"]: one["reason"] for one in answers if one["verdict"] not in FINE}


def assert_only(answers: Answers, check: str, reason: str, subject: str | None = None) -> Mapping[str, Any]:
    """This check fails for this reason, and no other by accident: at most the companions that the table names."""
    found, drill = wrong(answers), DRILLS[check]
    assert found.get(check) == reason, f"{check}: {found}"
    assert set(found) - {check} <= set(drill.companions), f"others by accident: {found}"
    mine = next(one for one in answers if one["check"] == check and one["verdict"] not in FINE)
    if subject is not None:
        assert mine["subject"] == subject
    return mine


def blocking(answers: Answers) -> set[str]:
    """The checks that stop their stage."""
    return {one["check"] for one in answers if one["blocks"] and one["verdict"] in ("fail", "unknown")}


@dataclass
class Faults:
    """The file that says what is broken now; every process of the deployment reads it."""

    place: Path

    def __post_init__(self) -> None:
        self._now: dict[str, Any] = {}
        self._write()

    @contextlib.contextmanager
    def broken(self, **kinds: Any) -> Iterator[None]:
        """Break these kinds of things inside the block: engine, gateway, policy, clock_s, without."""
        before = dict(self._now)
        self._now |= kinds
        self._write()
        try:
            yield
        finally:
            self._now = before
            self._write()

    def touch(self, **kinds: Any) -> None:
        """Another word for what is broken already, so that control publishes once more; ends with the block."""
        self._now |= kinds
        self._write()

    def _write(self) -> None:
        temporary = self.place.with_suffix(".new")
        temporary.write_text(json.dumps(self._now))
        temporary.replace(self.place)


@dataclass
class Yard(Deployment):
    """A deployment whose engine, gateway configuration, policy servers, clock and catalogue break on demand."""

    faults: Faults = field(default_factory=lambda: Faults(Path(os.devnull)))

    @property
    def control(self) -> ControlClient:
        return ControlClient(StatePaths.of(self.state_dir).control_socket)

    def gonogo(self, *words: str, **settings: Any) -> Result:
        """A gonogo command that need not succeed."""
        return self.run(*words, **settings)

    def preflight(self, asked: Spec) -> Answers:
        """What the preflight checks say of a spec; nothing is changed."""
        return list(self.control.plan(json.loads(asked.model_dump_json()))["answers"])

    def submit(self, asked: Spec) -> int:
        """Ask for a service as `gonogo up` does; its revision. Raises `ControlRefused` when it is blocked."""
        return int(self.control.post_spec(json.loads(asked.model_dump_json()), "drill")["revision"])

    def refused(self, asked: Spec) -> Answers:
        """Ask for a service that must be blocked: its answers; nothing was stored and nothing started."""
        before = self.control.status()
        try:
            self.submit(asked)
        except ControlRefused as refusal:
            assert (refusal.reason, refusal.exit_code) == ("Blocked", 3)
            after = self.control.status()
            assert [one["name"] for one in after["services"]] == [one["name"] for one in before["services"]]
            assert [one["desired"] for one in after["services"]] == [one["desired"] for one in before["services"]]
            return list(refusal.values["answers"])
        raise AssertionError(f"{asked.service} was not blocked")

    def rejected(self, asked: Spec, without: str) -> Mapping[str, Any]:
        """What became of a service that this check would have blocked: it was rejected later. It is removed again."""
        gateway = asked.gateway.model_copy(update={"port": self.port})
        asked = asked.model_copy(update={"gateway": gateway, "replicas": Replicas(min=1, max=1)})
        with self.faults.broken(without=[without]):
            self.submit(asked)
            try:
                entry = self.settled([asked.service])[asked.service]
            finally:
                self.remove(asked.service)
        assert entry["phase"] == "rejected", entry
        return entry

    def live(self) -> Answers:
        """Ask the service through the front door now."""
        return self.control.check_live(SERVICE)

    def known(self, stage: str = "live") -> Answers:
        """What control knows now without asking."""
        return [one for one in self.control.check(SERVICE) if one["stage"] == stage]

    def wrong_known(self) -> dict[str, str]:
        return wrong(self.known())

    def well(self) -> None:
        """Everything passes before something is broken; what an earlier drill's probes saw is asked again."""
        if wrong(self.known()):
            self.live()
        wait_for(lambda: wrong(self.known()) == {}, 30.0, "nothing is broken any more")

    def wait_known(self, check: str, reason: str | None, limit_s: float = 30.0) -> Answers:
        """Wait until control knows this reason of this check (None: that it is fine again)."""
        try:
            wait_for(lambda: self.wrong_known().get(check) == reason, limit_s, f"{check} says {reason}")
        except AssertionError as error:
            raise AssertionError(f"{error}; control knows {self.wrong_known()}\n{self.logs()}") from None
        return self.known()

    def last_event(self) -> int:
        """The sequence of the newest event."""
        return newest_sequence(self.control)

    def failed_actions(self, after: int) -> int:
        """How many actions have failed since that event."""
        return sum(1 for one in self.control.events(after=after) if one["kind"] == "ActionFailed")

    def entry(self, service: str) -> Mapping[str, Any] | None:
        return next((one for one in self.control.status()["services"] if one["name"] == service), None)

    def settled(self, services: Sequence[str], limit_s: float = 90.0) -> dict[str, Mapping[str, Any]]:
        """Wait until each of these is proven or rejected."""

        def look() -> dict[str, Mapping[str, Any]] | None:
            found = {one["name"]: one for one in self.control.status()["services"] if one["name"] in services}
            return found if all(one["phase"] in ("proven", "rejected") for one in found.values()) else None

        found: dict[str, Mapping[str, Any]] = wait_for(look, limit_s, f"{services} are settled\n{self.logs()}")
        return found

    def replicas(self, service: str = SERVICE) -> list[Mapping[str, Any]]:
        entry = self.entry(service)
        return [one for one in entry["replicas"] if one["health"] == "ready"] if entry else []

    def remove(self, *services: str) -> None:
        """Take services away and wait until they are gone."""
        names = {one["name"] for one in self.control.status()["services"]} & set(services)
        for name in names:
            self.control.delete_service(name, "drill")
        wait_for(lambda: all(self.entry(name) is None for name in names), 60, f"{names} are gone")

    def chat(self, client: httpx.Client, text: str = "Hello", tokens: int = 4, **fields: Any) -> httpx.Response:
        asked = [{"role": "user", "content": text}]
        question = {"model": SERVICE, "messages": asked, "max_tokens": tokens, "temperature": 0, **fields}
        return client.post("/v1/chat/completions", json=question)

    def ask_once(self, text: str = "Hello", tokens: int = 4, **fields: Any) -> httpx.Response:
        with self.client() as client:
            return self.chat(client, text, tokens, **fields)

    def status_without_key(self) -> int:
        with self.client() as client:
            del client.headers["authorization"]
            return self.chat(client).status_code


@dataclass(frozen=True)
class Second:
    """A second service beside the first, which four checks would have blocked or advised against."""

    asked: Spec
    port: int
    key: str

    def client(self, yard: Yard) -> httpx.Client:
        """A client of this service."""
        made = yard.client()
        made.base_url = httpx.URL(f"https://127.0.0.1:{self.port}")
        made.headers["authorization"] = f"Bearer {self.key}"
        return made


def make_yard(place: Path) -> Yard:
    """The folder of a deployment with everything in it that can break; nothing runs yet."""
    place.chmod(0o755)  # as a home directory often is: what is private must be so by itself
    packages = place / "packages"
    install_broken_engine(packages)
    (place / "envoy").symlink_to(gateway_binary())
    faults = Faults(place / "faults.json")
    environment = {
        "PYTHONPATH": python_path(packages, FAULTS),
        "GONOGO_DRILL": str(faults.place),
        "GONOGO_ENVOY": str(place / "envoy"),
    }
    return Yard(state_dir=place / "state", port=free_port(), environment=environment, faults=faults)


def python_path(*folders: Path) -> str:
    """These folders before those of the tests' own PYTHONPATH: what is broken is the tree that is under test."""
    own = os.environ.get("PYTHONPATH")
    return os.pathsep.join((*map(str, folders), *([own] if own else [])))


def install_broken_engine(packages: Path) -> None:
    """The engine's package as in this environment, with our proxy in front of it."""
    found = find_spec("xllamacpp")
    assert found is not None and found.submodule_search_locations
    real, ours = Path(found.submodule_search_locations[0]), packages / "xllamacpp"
    ours.mkdir(parents=True)
    for file in real.iterdir():
        if file.name != "__init__.py":
            (ours / file.name).symlink_to(file)
    (ours / "_real.py").symlink_to(real / "__init__.py")
    shutil.copy(FAULTS / "broken_engine.py", ours / "__init__.py")


def spec_file(folder: Path, **changes: Any) -> str:
    """A spec as a file, with a free port where none is said."""
    place = folder / "drill.yaml"
    place.write_text(spec(**{"gateway": {"port": free_port()}, **changes}).model_dump_json())
    return str(place)


def port_of(place: str) -> int:
    """The port in a file of `spec_file`."""
    return int(json.loads(Path(place).read_text())["gateway"]["port"])


@contextlib.contextmanager
def faulty(state_dir: Path, folder: Path, **kinds: Any) -> Iterator[Deployment]:
    """A deployment of its own with these faults; whatever it starts ends with the block."""
    faults = Faults(folder / "faults.json")
    environment = {"PYTHONPATH": python_path(FAULTS), "GONOGO_DRILL": str(faults.place)}
    with faults.broken(**kinds):
        own = Deployment(state_dir, 0, environment=environment)
        try:
            yield own
        finally:
            own.down()


def handshake(port: int, newest: ssl.TLSVersion, address: str = "127.0.0.1") -> str | None:
    """The version of TLS that a client which can do no more than `newest` gets; None: refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = newest
    try:
        with socket.create_connection((address, port), timeout=5) as plain, context.wrap_socket(plain) as secured:
            return secured.version()
    except ssl.SSLError:
        return None


def own_address() -> str | None:
    """An address of this machine that is not loopback; None where there is none. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address = str(probe.getsockname()[0])
        except OSError:
            return None
    return None if address.startswith("127.") else address


def gonogo(state_dir: Path, *words: str, before: Sequence[str] = (), **environment: str) -> Result:
    """A gonogo command on a state directory of its own, behind another command (`prlimit --nofile=256`) if told."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "gonogo.cli.main", *words, "--state-dir", str(state_dir), "--json"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def until(question: Callable[[], Any], what: str, limit_s: float = 40.0) -> Any:
    """Wait for what a fault does to show."""
    return wait_for(question, limit_s, what)

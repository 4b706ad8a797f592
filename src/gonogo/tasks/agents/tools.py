"""What a run needs of this machine: the agent's locked environment, adb, the device, where the gateway listens."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

import gonogo
from gonogo.runtimes.environments import EnvironmentStore
from gonogo.runtimes.look_servers import system_ca_file
from gonogo.runtimes.paths import StatePaths
from gonogo.security.certificates import GIVEN_ROOT_FILE
from gonogo.store.store import Store
from gonogo.tasks.agents.processes import RUN_MARK

ADB = "GONOGO_ADB"
"""The environment variable that names adb where it is not on the search path; set it for `gonogo up`."""
ADB_LIMIT_S = 20.0
_RUNNERS: Mapping[str, str] = {"phone-agent": "run_phone_agent.py"}
_LOOPBACK: Mapping[str, str] = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


class Missing(Exception):
    """What is not there: a code, and what to do."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """The Python of the agent's environment, and adb."""

    python: Path
    adb: Path


def find_tools(program: str, paths: StatePaths) -> Tools:
    """Raises `Missing` with what helps."""
    return Tools(python=require_installed(program, paths), adb=_adb())


def require_installed(program: str, paths: StatePaths) -> Path:
    """The Python of its newest environment. Raises `Missing` with the command that makes one."""
    made = EnvironmentStore(paths.environments).of_engine(program)
    if not made:
        line = f"`gonogo env create {program}` installs it, with the --state-dir of this deployment"
        raise Missing("agent_not_installed", f"{program} is not installed on the gateway's machine: {line}.", _AT)
    return made[0].python_path


def _adb() -> Path:
    given = os.environ.get(ADB)
    found = given if given and os.access(given, os.X_OK) else shutil.which("adb")
    if (given and found != given) or found is None:
        seen = f"${ADB} names {given}, which is no program" if given else "adb is not on the search path"
        told = f"{seen}: install Android's platform-tools, or set {ADB}=FILE for `gonogo up`."
        raise Missing("adb_not_found", told, _AT)
    return Path(found).absolute()


def require_device(adb: Path, device: str) -> None:
    """Raises `Missing` where adb does not list it as ready. Starts adb's server, which is nobody's run."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GONOGO_")}
    try:
        words = [str(adb), "devices"]
        asked = subprocess.run(words, capture_output=True, text=True, timeout=ADB_LIMIT_S, env=ours, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing("adb_silent", f"`adb devices` gave no answer: {type(error).__name__}.") from None
    states = devices_of(asked.stdout)
    if states.get(device) != "device":
        seen = ", ".join(f"{name} ({state})" for name, state in states.items()) or "none"
        told = f"adb does not list {device} as ready; it lists: {seen}. Connect it, and allow debugging on it."
        raise Missing("device_not_ready", told)


def devices_of(printed: str) -> Mapping[str, str]:
    """Serial → state, of what `adb devices` prints."""
    lines = (line.split("\t") for line in printed.splitlines() if "\t" in line)
    return {words[0].strip(): words[1].strip() for words in lines}


def command(program: str, tools: Tools) -> tuple[str, ...]:
    """The descriptor of the events comes behind it."""
    runner = Path(gonogo.__file__).parent / "runners" / _RUNNERS[program]
    return str(tools.python), "-I", "-B", "-X", "utf8", str(runner)


def environment(tools: Tools, paths: StatePaths, folder: Path, task_id: str, ca_file: str) -> dict[str, str]:
    """All that the agent's process gets: no key, nothing of ours but the marks.

    `folder` is the run's own: screenshots go there, and a link to adb by that name. HOME is the user's, where adb's own
    key is. The role of a part is not told: adb's server, if the agent starts one, must not be taken for it.
    """
    link = folder / "adb"
    if not link.is_symlink():
        link.symlink_to(tools.adb)
    kept = {name: os.environ[name] for name in ("HOME", "USER", "LANG", "TZ") if name in os.environ}
    return {
        **kept,
        "PATH": f"{folder}:{tools.python.parent}:{os.defpath}",
        "TMPDIR": str(folder),
        "SSL_CERT_FILE": ca_file,
        "REQUESTS_CA_BUNDLE": ca_file,
        "GONOGO_STATE": str(paths.root),
        RUN_MARK: task_id,
    }


def folder_of(paths: StatePaths, task_id: str) -> Path:
    """The run's own folder; screens of a phone lie in it while it runs."""
    return paths.root / "tasks" / "runs" / task_id


def gateway_of(store: Store, service: str, paths: StatePaths) -> tuple[str, str]:
    """Base URL and CA file for a client on this machine. Raises `Missing` for a service that does not serve."""
    serving = store.policy_view().serving
    gateways = {name: store.revision(name, number).spec.gateway for name, number in serving.items()}
    gateway = gateways.get(service)
    if gateway is None:
        seen = ", ".join(serving) or "none"
        raise Missing("model_not_found", f"There is no service {service}; these serve: {seen}.")
    given = any(one.certificate_file for one in gateways.values())
    host = _LOOPBACK.get(gateway.address, gateway.address)
    if given and gateway.hostnames:
        host = gateway.hostnames[0]
    trusted = paths.ca_file
    if given:
        root = paths.tls / GIVEN_ROOT_FILE
        trusted = root if root.exists() else Path(system_ca_file())
    return f"https://{host}:{gateway.port}/v1", str(trusted)


_AT = "agent.program"

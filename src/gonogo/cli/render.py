"""`gonogo render`: files for other tools.

`systemd`: a user unit in which systemd does the keeper's work. `envoy`: the deployed gateway as one file, for people
who run an Envoy of their own; it holds no key, only the paths of the files that do. `rules`, `dashboard`: what
Prometheus and Grafana take.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import typer

from gonogo.cli.options import Json, Lang, Listen, StateDir, What, told
from gonogo.cli.refusal import WORLD_DID_NOT_COMPLY, Outcome, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session

UNIT = """\
# gonogo as a systemd user unit: systemd starts control again when it dies, instead of gonogo's own keeper.
#   gonogo down --all                      # if it runs already
#   gonogo render systemd > ~/.config/systemd/user/gonogo.service
#   systemctl --user daemon-reload && systemctl --user enable --now gonogo
#   loginctl enable-linger                 # go on after logging out

[Unit]
Description=gonogo: {service}
After=network-online.target

[Service]
Type=exec
ExecStart={command}
Restart=always
RestartSec=1
# Only control gets the signal: gateway, policy servers and engines go on and are adopted by the next control.
KillMode=process
LimitNOFILE=65536
WorkingDirectory={folder}

[Install]
WantedBy=default.target
"""


ENVOY_HEAD = """\
# The gateway of {state_dir} as Envoy was given it last{of_service}, without a control process.
#   gonogo render envoy > envoy.yaml
#   envoy --mode validate --config-path envoy.yaml
# Endpoints and revisions are those of the moment: render it again when replicas or revisions change. Policy servers,
# certificate and access log stay gonogo's; without policy servers nobody is let in.
"""


def application() -> typer.Typer:
    """One verb for each kind of file."""
    made = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    made.command("envoy", help=told("render.envoy"))(envoy)
    made.command("systemd", help=told("render.systemd"))(systemd)
    made.command("rules", help=told("render.rules"))(rules)
    made.command("dashboard", help=told("render.dashboard"))(dashboard)
    return made


def envoy(
    what: What = None, listen: Listen = None, state_dir: StateDir = None, json: Json = False, lang: Lang = None
) -> Outcome:
    import yaml

    from gonogo.actions.model import ListenerPlan
    from gonogo.cli.session import open_session
    from gonogo.cli.specs import listen_of
    from gonogo.gateway.ads import load_snapshot
    from gonogo.gateway.snapshot import CLUSTER, LISTENER
    from gonogo.gateway.static import Wanted, static_configuration

    session = open_session(state_dir, json, lang)
    snapshot = load_snapshot(session.paths.snapshot)
    if snapshot is None or not snapshot.types[LISTENER].resources:
        raise Refusal("NothingDeployed", WORLD_DID_NOT_COMPLY, {"state_dir": str(session.paths.root)})
    names = {name.rpartition("/")[0] for name, _ in snapshot.types[CLUSTER].resources if "/" in name}
    service = None if what is None else _service(session, what, names)
    certificate, key = _certificate_files(session)
    wanted = Wanted(
        certificate_file=certificate,
        key_file=key,
        service=service,
        listen=None if listen is None else ListenerPlan(**listen_of(listen)),
    )
    content = static_configuration(snapshot, wanted)
    of_service = "" if service is None else f", of the service {service} alone"
    head = ENVOY_HEAD.format(state_dir=session.paths.root, of_service=of_service)
    text = head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    session.line(text.rstrip("\n"))
    return Outcome(result={"configuration": content})


def _service(session: Session, what: str, names: set[str]) -> str:
    """The deployed service that `what` names, or that a spec, a recipe or a model is. Raises `Refusal`."""
    from gonogo.cli.specs import spec_of
    from gonogo.spec.recipes import recipes

    is_name = what in names or not ("/" in what or what.endswith((".yaml", ".yml", ".gguf")) or what in recipes())
    service = what if is_name else spec_of(session, what).service
    if service not in names:
        known = ", ".join(sorted(names)) or None
        raise Refusal("NoService", WORLD_DID_NOT_COMPLY, {"service": service, "known": known})
    return service


def _certificate_files(session: Session) -> tuple[str, str]:
    """The files of the certificate that the gateway presents, and of its key: the user's own, or ours, which is one."""
    from gonogo.control.sight import given_pair
    from gonogo.security.certificates import SERVER_FILE
    from gonogo.store import open_store

    store = open_store(session.paths.database, clock=time.time)
    try:
        gateways = tuple(one.desired.spec.gateway for one in store.services() if not one.removed)
    finally:
        store.close()
    given = given_pair(gateways)
    if given is not None:
        return str(given[0]), str(given[1])
    return str(session.paths.tls / SERVER_FILE), str(session.paths.tls / SERVER_FILE)


def systemd(what: What = None, state_dir: StateDir = None, json: Json = False, lang: Lang = None) -> Outcome:
    from gonogo.cli.session import open_session
    from gonogo.cli.specs import spec_of

    session = open_session(state_dir, json, lang)
    spec = spec_of(session, what)
    words = [sys.executable, "-m", "gonogo.cli.main", "up", "--foreground", "--state-dir", str(session.paths.root)]
    if what is not None:
        words.append(os.path.abspath(what) if os.path.exists(what) else what)
    unit = UNIT.format(service=spec.service, command=" ".join(map(_quoted, words)), folder=_percent(os.getcwd()))
    session.line(unit.rstrip("\n"))
    return Outcome(result={"unit": unit})


def rules(json: Json = False, lang: Lang = None) -> Outcome:
    return _printed("rules.yaml", json, lang)


def dashboard(json: Json = False, lang: Lang = None) -> Outcome:
    return _printed("dashboard.json", json, lang)


def _printed(name: str, json: bool, lang: str | None) -> Outcome:
    from gonogo.cli.session import open_session
    from gonogo.monitoring import file_text

    text = file_text(name)
    open_session(None, json, lang).line(text.rstrip("\n"))
    return Outcome(result={"file": name, "text": text})


def _quoted(word: str) -> str:
    """A word as systemd reads it: in double quotes, with `%` and `$` doubled."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{_percent(escaped)}"'


def _percent(text: str) -> str:
    return text.replace("%", "%%")

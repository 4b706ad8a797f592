"""`gonogo render`: files for other tools: a systemd unit, Prometheus's rules, Grafana's dashboard."""

from __future__ import annotations

import os
import sys

import typer

from gonogo.cli.options import Json, Lang, StateDir, What, told
from gonogo.cli.refusal import Outcome

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


def application() -> typer.Typer:
    """One verb for each kind of file."""
    made = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    made.command("systemd", help=told("render.systemd"))(systemd)
    made.command("rules", help=told("render.rules"))(rules)
    made.command("dashboard", help=told("render.dashboard"))(dashboard)
    return made


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

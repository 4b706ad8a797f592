"""`gonogo clients`: the lines that point curl, the openai SDK and the recipe's own programs at a running service.

They take the key from $GONOGO_API_KEY: a key is shown once, when it is made.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from gonogo.cli.options import Json, Lang, ServiceName, StateDir
from gonogo.cli.refusal import WRONG_INPUT, Outcome, Refusal

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.spec.recipe_parts import Program
    from gonogo.words.client_lines import Access, ClientLines

PUBLIC_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
)


def command(service: ServiceName = None, state_dir: StateDir = None, json: Json = False, lang: Lang = None) -> Outcome:
    from gonogo.cli.session import open_session
    from gonogo.words.client_lines import Access, client_lines

    session = open_session(state_dir, json, lang)
    status = session.running_client().status()
    chosen = _chosen(status["services"], service)
    access = Access(endpoint=chosen["endpoint"], ca_file=status["ca_file"], service=chosen["name"])
    clients = client_lines(access, programs_of(chosen["model"], chosen["name"]))
    session.say("clients.key")
    session.line(make_key_line(session, access.service))
    print_clients(session, access, clients)
    return Outcome(result=_result(access, clients))


def programs_of(model: str, service: str) -> tuple[Program, ...]:
    """The programs that the recipe of this model names; none for a model without a recipe.

    A recipe's model in another form (GGUF files, an FP8 repository) is known by the service, which bears its name.
    """
    from gonogo.spec.recipes import recipes

    recipe = recipes().get(model) or recipes().get(service)
    return recipe.clients.programs if recipe is not None else ()


def make_key_line(session: Session, service: str) -> str:
    """The line that makes a key and keeps it in $GONOGO_API_KEY."""
    import shlex

    words = ("gonogo", "keys", "create", "--service", service, "--state-dir", str(session.paths.root))
    return f"export GONOGO_API_KEY=$({shlex.join(words)})"


def print_clients(session: Session, access: Access, clients: Sequence[ClientLines]) -> None:
    """Each client's sentence and lines; and how to keep the public CAs, where a line takes their place."""
    from gonogo.words.client_lines import trust_line

    for client in clients:
        session.line()
        session.say(f"clients.{client.name.replace('-', '_')}")
        for line in client.lines:
            session.line(line)
    if any(client.replaces_trust for client in clients):
        session.line()
        session.say("clients.trust")
        session.line(trust_line(access, public_ca_file()))


def public_ca_file() -> str | None:
    """The file in which this system keeps the public CAs; None where it is not in a usual place."""
    candidates = (ssl.get_default_verify_paths().openssl_cafile, *PUBLIC_CA_FILES)
    return next((name for name in candidates if Path(name).is_file()), None)


def _chosen(services: Sequence[Mapping[str, Any]], asked: str | None) -> Mapping[str, Any]:
    known = [one["name"] for one in services]
    if asked is None and len(known) > 1:
        raise Refusal("WhichService", WRONG_INPUT, {"known": known})
    found = [one for one in services if asked in (None, one["name"])]
    if not found:
        raise Refusal("NoService", WRONG_INPUT, {"service": asked, "known": known})
    return found[0]


def _result(access: Access, clients: Sequence[ClientLines]) -> dict[str, Any]:
    from gonogo.words.client_lines import KEY_VARIABLE, trust_line

    return {
        "service": access.service,
        "endpoint": access.endpoint,
        "ca_file": access.ca_file,
        "key_variable": KEY_VARIABLE,
        "clients": [
            {"name": one.name, "lines": list(one.lines), "replaces_trust": one.replaces_trust} for one in clients
        ],
        "trust_line": trust_line(access, public_ca_file()),
    }

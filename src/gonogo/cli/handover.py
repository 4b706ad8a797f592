"""What `up` hands over: endpoint, CA, key, one curl line, one SDK snippet, the report. All of it works when pasted."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gonogo.cli.session import Session

KEY_NAME = "up"
"""The name of the key that `up` makes; while a live one of that name opens the service, no other is made."""
QUESTION = "What is the capital of France? Answer with one word."
MAX_TOKENS = 64


def key_for(session: Session, service: str) -> str | None:
    """A new API key for `service`; None when an earlier `up` made one that still counts. Raises `StoreError`."""
    import time

    from gonogo.cli.keyring import add_key
    from gonogo.security.keys import usable
    from gonogo.store import open_store

    store = open_store(session.paths.database, clock=time.time)
    try:
        now = time.time()
        known = (key for key in store.keys(service) if key.name == KEY_NAME and key.revision is None)
        if any(usable(key, now) for key in known):
            return None
        return add_key(store, name=KEY_NAME, service=service, scopes=("inference", "models"), expires_at=None)[0]
    finally:
        store.close()


def print_handover(session: Session, result: dict[str, Any]) -> None:
    """What to copy, and what to do next. `result` is the object that `up --json` prints."""
    key = result["api_key"]
    session.line()
    rows = (
        ("handover.endpoint", result["endpoint"]),
        ("handover.ca", result["ca_file"]),
        ("handover.key", key or session.told("handover.key_from_before")),
        ("handover.report", result["report"]),
    )
    labels = [session.told(name) for name, _ in rows]
    width = max(map(_cells, labels))
    for label, (name, value) in zip(labels, rows, strict=True):
        once = f"   ({session.told('handover.once')})" if name == "handover.key" and key else ""
        session.line(f"  {label}{' ' * (width - _cells(label))}  {value}{once}")
    if shutil.which("gonogo") is None:
        session.line()
        session.say("handover.path")
        session.line(f'export PATH={shlex.quote(str(Path(sys.argv[0]).resolve().parent))}:"$PATH"')
    if key is None:
        session.line()
        session.say("handover.make_key")
        session.line(f"export GONOGO_API_KEY=$({_keys_create(session, result['service'])})")
    session.line()
    session.say("handover.curl")
    session.line(curl_line(result["endpoint"], result["ca_file"], result["service"], key))
    session.line()
    session.say("handover.sdk")
    for line in sdk_snippet(result["endpoint"], result["ca_file"], result["service"], key):
        session.line(line)
    session.line()
    session.say("handover.next", service=result["service"])


def curl_line(endpoint: str, ca_file: str, service: str, key: str | None) -> str:
    """One line for a POSIX shell; without a key it takes $GONOGO_API_KEY."""
    question = {
        "model": service,
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "messages": [{"role": "user", "content": QUESTION}],
    }
    authorization = '"Authorization: Bearer $GONOGO_API_KEY"' if key is None else f"'Authorization: Bearer {key}'"
    words = ("curl", "-sS", "--cacert", ca_file, endpoint + "/chat/completions")
    body = f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(question))}"
    return f"{shlex.join(words)} -H {authorization} {body}"


def sdk_snippet(endpoint: str, ca_file: str, service: str, key: str | None) -> tuple[str, ...]:
    """Python for the openai SDK; without a key it takes GONOGO_API_KEY from the environment."""
    key_words = 'os.environ["GONOGO_API_KEY"]' if key is None else json.dumps(key)
    messages = json.dumps([{"role": "user", "content": QUESTION}])
    return (
        "import os, ssl, httpx, openai",
        f"trust = httpx.Client(verify=ssl.create_default_context(cafile={json.dumps(ca_file)}))",
        f"client = openai.OpenAI(base_url={json.dumps(endpoint)}, api_key={key_words}, http_client=trust)",
        f"asked = dict(model={json.dumps(service)}, max_tokens={MAX_TOKENS}, temperature=0, messages={messages})",
        "answer = client.chat.completions.create(**asked)",
        "print(answer.choices[0].message.content)",
    )


def _keys_create(session: Session, service: str) -> str:
    words = ("gonogo", "keys", "create", "--service", service, "--state-dir", str(session.paths.root))
    return shlex.join(words)


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)

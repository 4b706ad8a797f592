"""Talks to the control process of one deployment: its HTTP API on a unix socket. JSON in, JSON out.

Standard library only, so that `gonogo status` starts fast. Not here: starting control (`gonogo.control.launch`), and
words: a refusal carries a reason code and values.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any, Mapping, Union
from urllib.parse import quote, urlencode

Json = dict[str, Any]
TIMEOUT_S = 30.0
SLOW_TIMEOUT_S = 180.0
"""For what asks the model itself: probes through the front door."""


class ControlRefused(Exception):
    """Control answered with an error: a reason code, the values of its words, and the exit code to end with."""

    def __init__(self, reason: str, values: Mapping[str, Any], exit_code: int) -> None:
        super().__init__(f"{reason} {dict(values)}")
        self.reason, self.values, self.exit_code = reason, values, exit_code


class ControlSilent(Exception):
    """Nobody answers on the socket, or not in time."""


class ControlClient:
    """One deployment's control process. Every call opens a connection of its own; none is kept."""

    def __init__(self, socket_path: Union[str, Path], timeout_s: float = TIMEOUT_S) -> None:
        self._path, self._timeout_s = str(socket_path), timeout_s

    def healthz(self, timeout_s: float = 2.0) -> Json:
        """version, pid, epoch, observation."""
        return self._call("GET", "/v1/healthz", timeout_s=timeout_s)

    def status(self) -> Json:
        """state_dir, endpoint, ca_file, epoch, services, processes, answers."""
        return self._call("GET", "/v1/status")

    def post_spec(
        self, spec: Json, principal: str, started_at: Union[float, None] = None, allow_downtime: bool = False
    ) -> Json:
        """Make this the desired spec of its service: service, revision, changed.

        `started_at` (Unix seconds) is when the user's command began. `allow_downtime`: where old and new have no room
        side by side, the old one ends first. Takes as long as the preflight checks.
        """
        body = {"spec": spec, "principal": principal, "started_at": started_at, "allow_downtime": allow_downtime}
        return self._call("POST", "/v1/specs", body, timeout_s=SLOW_TIMEOUT_S)

    def plan(self, spec: Json, allow_downtime: bool = False) -> Json:
        """What would be done: observation, actions, answers, blocked."""
        body = {"spec": spec, "allow_downtime": allow_downtime}
        return self._call("POST", "/v1/plan", body, timeout_s=SLOW_TIMEOUT_S)

    def check(self, service: Union[str, None] = None) -> list[Json]:
        """The current answers."""
        return list(self._call("GET", "/v1/check" + _query(service=service))["answers"])

    def check_live(self, service: str) -> list[Json]:
        """Ask through the front door now: the answers. Takes seconds."""
        return list(self._call("POST", "/v1/check/live", {"service": service}, timeout_s=SLOW_TIMEOUT_S)["answers"])

    def events(self, after: int = 0, limit: int = 200, wait_s: float = 0.0) -> list[Json]:
        """Events with a sequence above `after`, oldest first; waits up to `wait_s` (at most 20) for the first."""
        query = _query(after=after, limit=limit, wait_s=min(wait_s, 20.0))
        return list(self._call("GET", "/v1/events" + query, timeout_s=self._timeout_s + wait_s)["events"])

    def report(self, service: Union[str, None] = None) -> Json:
        """Everything that the report shows."""
        return self._call("GET", "/v1/report" + _query(service=service))

    def metrics(self) -> str:
        """The metrics in Prometheus's text form."""
        status, content = self._exchange("GET", "/metrics", None, self._timeout_s)
        return content.decode("utf-8") if status == 200 else str(_read(status, content))

    def delete_service(self, service: str, principal: str) -> Json:
        """Ask for the service to be taken down: service, removed."""
        return self._call("DELETE", f"/v1/services/{quote(service, safe='')}" + _query(principal=principal))

    def _call(
        self, method: str, path: str, body: Union[Json, None] = None, timeout_s: Union[float, None] = None
    ) -> Json:
        return _read(*self._exchange(method, path, body, self._timeout_s if timeout_s is None else timeout_s))

    def _exchange(self, method: str, path: str, body: Union[Json, None], timeout_s: float) -> tuple[int, bytes]:
        connection = _UnixConnection(self._path, timeout_s)
        headers = {"Host": "control", "Accept": "application/json"}
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body).encode()
        try:
            connection.request(method, path, body=content, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ControlSilent(f"{method} {path}: {type(error).__name__}: {error}") from error
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("control", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _query(**values: Union[str, float, None]) -> str:
    given = {name: value for name, value in values.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _read(status: int, text: bytes) -> Json:
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if isinstance(body, dict) and 200 <= status < 300:
        return body
    told = body.get("error") if isinstance(body, dict) else None
    if isinstance(told, dict) and isinstance(told.get("reason"), str):
        raise ControlRefused(told["reason"], told.get("values") or {}, int(told.get("exit_code", 4)))
    words = f"HTTP {status} {text[:200].decode(errors='replace')}"
    raise ControlRefused("ControlAnsweredWrong", {"words": words}, 1)

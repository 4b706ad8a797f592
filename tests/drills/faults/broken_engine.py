"""A broken build of the engine's package: the real one, behind an HTTP proxy that does wrong what the drill says.

Installed by `harness.install_broken_engine` as `xllamacpp/__init__.py` beside the real package's other files. The file
that `GONOGO_DRILL` names is read for each request: {"engine": {"": FAULT}}, where the key is a part of the replica's
name ("" is every replica, "/1/1" the second one of each service's first revision).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RENAMED = "ggml-model-q4_1.gguf"
OTHER_QUESTION = "Write one short sentence about the sea."


def fault() -> str | None:
    """What this replica does wrong now, None for nothing."""
    try:
        with open(os.environ["GONOGO_DRILL"], encoding="utf-8") as file:
            told = json.load(file).get("engine") or {}
    except (KeyError, OSError, ValueError):
        return None
    name = os.environ.get("GONOGO_NAME", "")
    return next((what for part, what in told.items() if part in name), None)


if fault() == "cannot_be_loaded":
    raise ImportError("libllama.so: undefined symbol: llama_model_load_from_file")

from xllamacpp._real import *  # noqa: E402,F403
from xllamacpp._real import Server as RealServer  # noqa: E402
from xllamacpp._real import __version__  # noqa: E402,F401


class Server:
    """Listens where it was told to, and asks the real server behind it."""

    def __init__(self, parameters: Any) -> None:
        if fault() == "dies_at_start":
            raise RuntimeError("this build of the engine dies at start")
        if fault() == "dies_of_sigill":
            os.kill(os.getpid(), signal.SIGILL)
        if fault() == "loads_for_ever":
            signal.pause()
        port, parameters.port = parameters.port, _free_port()
        self._real = RealServer(parameters)
        self.listening_address = f"http://127.0.0.1:{port}"
        _Proxy.behind = parameters.port
        threading.Thread(target=_Listener(("127.0.0.1", port), _Proxy).serve_forever, daemon=True).start()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class _Door:
    """A second way in, from the whole network, open while the drill says so."""

    guard = threading.Lock()
    listener: _Listener | None = None

    @classmethod
    def follow(cls, wanted: bool) -> None:
        with cls.guard:
            if wanted and cls.listener is None:
                cls.listener = _Listener(("0.0.0.0", 0), _Proxy)
                threading.Thread(target=cls.listener.serve_forever, daemon=True).start()
            elif not wanted and cls.listener is not None:
                cls.listener.shutdown()
                cls.listener.server_close()
                cls.listener = None


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behind = 0

    def do_GET(self) -> None:
        self._pass_on(b"")

    def do_POST(self) -> None:
        self._pass_on(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _pass_on(self, body: bytes) -> None:
        wrong = fault()
        _Door.follow(wrong == "listens_everywhere")
        if wrong == "renamed" and body and json.loads(body).get("model") != RENAMED:
            self._unknown_model()
            return
        connection = HTTPConnection("127.0.0.1", self.behind, timeout=60)
        try:
            headers = {"Content-Type": self.headers.get("Content-Type") or "application/json"}
            connection.request(self.command, self.path, _question(body, wrong), headers)
            answer = connection.getresponse()
            if "event-stream" in (answer.getheader("Content-Type") or ""):
                self._stream(answer, wrong)
            else:
                self._whole(answer, wrong)
        except OSError:
            self.close_connection = True
        finally:
            connection.close()

    def _unknown_model(self) -> None:
        """As vLLM answers a request for a model that it was not started as."""
        content = json.dumps({"error": {"message": "The model does not exist.", "code": 404}}).encode()
        self.send_response(404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _whole(self, answer: HTTPResponse, wrong: str | None) -> None:
        content = _answer(answer.read(), wrong)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.getheader("Content-Type") or "text/plain")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, answer: HTTPResponse, wrong: str | None) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if wrong == "stream_held_back":
            self._chunk(answer.read())
        else:
            while piece := answer.read1(65536):
                self._chunk(piece)
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """The engine's log is for the engine."""


def _question(body: bytes, wrong: str | None) -> bytes:
    if not body or wrong not in ("answers_something_else", "max_tokens_ignored", "stop_ignored"):
        return body
    asked = json.loads(body)
    if wrong == "answers_something_else" and "messages" in asked:
        asked["messages"] = [{"role": "user", "content": OTHER_QUESTION}]
    elif wrong == "max_tokens_ignored":
        asked["max_tokens"] = asked.get("max_tokens", 0) + 16
    elif wrong == "stop_ignored":
        asked.pop("stop", None)
    return json.dumps(asked).encode()


def _answer(content: bytes, wrong: str | None) -> bytes:
    if wrong not in ("repeats_itself", "leaks_its_stop_token"):
        return content
    try:
        given = json.loads(content)
    except ValueError:
        return content
    for choice in given.get("choices", ()):
        if choice.get("message") and wrong == "repeats_itself":
            choice["message"]["content"] = " ".join([choice["message"]["content"]] * 12)
        elif choice.get("message"):
            choice["message"]["content"] += "<|im_end|>"
    return json.dumps(given).encode()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

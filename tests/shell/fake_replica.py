"""A program: an engine that generates one token, on a port that others may share. Usage: fake_replica.py PORT FOLDER.

While FOLDER/sick exists it says of itself that it is not well; what FOLDER/last-words holds it says as it turns sick.
"""

from __future__ import annotations

import json
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(sys.argv[2])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        sick = (FOLDER / "sick").exists()
        if sick and (FOLDER / "last-words").exists():
            print((FOLDER / "last-words").read_text(), flush=True)
        self._answer(503 if sick and self.path == "/health" else 200 if self.path == "/health" else 404, {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer(503 if (FOLDER / "sick").exists() else 200, {"usage": {"completion_tokens": 1}})

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
    print("gonogo.runner: starting", flush=True)
    server.serve_forever()

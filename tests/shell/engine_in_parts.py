"""A program: an engine of two processes whose server goes on saying that it is well. Usage: engine_in_parts.py PORT."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(200 if self.path == "/health" else 404, {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", "0")))
        self._send(200, {"usage": {"completion_tokens": 1}})

    def log_message(self, *_: object) -> None:
        return

    def _send(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    if os.fork() == 0:
        Path("/proc/self/comm").write_text("VLLM::EngineCor")
        while os.getppid() != 1:
            time.sleep(0.1)
        os._exit(0)
    if os.fork() == 0:
        signal.pause()  # a helper without a name
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Server)
    server.serve_forever()

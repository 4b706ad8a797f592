"""A program: an HTTP/1.1 engine that does what the request's x-want header says. Usage: fake_engine.py PORT NAME."""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(200, {"path": self.path, "engine": sys.argv[2]})

    def do_POST(self) -> None:
        body = self._body()
        want = self.headers.get("x-want", "200")
        if want == "stream":
            self._stream()
        elif want == "reset":
            self.connection.shutdown(2)
            self.close_connection = True
        elif want.startswith("usage "):
            self._complete(*map(int, want.split()[1:]))
        elif want.startswith("body "):
            self._send_bytes(200, want.removeprefix("body ").encode())
        else:
            if want.startswith("sleep "):
                time.sleep(float(want.removeprefix("sleep ")))
            status = int(want) if want.isdigit() else 200
            self._send(status, {"headers": dict(self.headers), "bytes": len(body), "engine": sys.argv[2]})

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", "0")))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, content: object) -> None:
        self._send_bytes(status, json.dumps(content).encode())

    def _complete(self, prompt_tokens: int, completion_tokens: int, size: int = 0) -> None:
        """A completion as OpenAI's API gives it, `size` bytes long at least; of the type that llama.cpp says."""
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        content = {"choices": [{"text": "x" * size}], "usage": {**usage, "total_tokens": sum(usage.values())}}
        self._send_bytes(200, json.dumps(content).encode(), "application/json; charset=utf-8")

    def _send_bytes(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        self.send_response(status)
        for name, value in {
            "content-type": content_type,
            "content-length": str(len(body)),
            "x-gonogo-code": "forged by the engine",
            "x-gonogo-wrapped": "1",
            "x-ratelimit-limit-tokens": "forged by the engine",
            "x-envoy-upstream-service-time": "1",
        }.items():
            self.send_header(name, value)
        # In one piece: an engine killed between the two would leave half an answer, which nobody can repeat.
        self._headers_buffer += [b"\r\n", body]
        self.flush_headers()

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(10):
            piece = f"data: {number}\n\n".encode()
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.flush()
            time.sleep(0.1)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()

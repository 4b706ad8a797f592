"""A small control process for tests of the command line: the HTTP API on the real socket, one service, no engine."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gonogo.runtimes.paths import StatePaths
from tests.acceptance import reports

Json = dict[str, Any]


class FakeControl:
    """Answers as control does. Set the fields to make it answer otherwise.

    `ending`: the phase in which a new revision ends. `polls_until_end`: how many looks at the status that takes;
    `polls_until_ready`: how many it takes until its replicas are there again, as after control was started anew.
    """

    def __init__(self, paths: StatePaths) -> None:
        self.paths = paths
        self.report = reports.good()
        self.ending = "proven"
        self.polls_until_end = 2
        self.polls_until_ready = 0
        self.refuse_spec: tuple[int, Json] | None = None
        self.live_answers: list[Json] | None = None
        self.broken_status: Any = None
        self.rejected: Json | None = None
        self.specs: list[Json] = []
        self.removed: list[str] = []
        self.events: list[Json] = []
        self.polls = self.proven_again = 0

    def status(self) -> Any:
        if self.broken_status is not None:
            return self.broken_status
        self.polls += 1
        services = []
        if self.specs:
            ended = self.polls > self.polls_until_end
            name = self.specs[-1]["spec"]["service"]
            services = [{**self.report["status"]["services"][0], "name": name, "replicas": self._replicas(name)}]
            services[0]["phase"] = self.ending if ended else "starting"
            services[0]["rejected"] = self.rejected if ended else None
        known = {
            "state_dir": str(self.paths.root),
            "ca_file": str(self.paths.ca_file),
            "endpoint": self.report["status"]["endpoint"] if services else None,
            "services": services,
            "answers": self.report["answers"] if services else [],
        }
        return {**self.report["status"], **known}

    def _replicas(self, name: str) -> list[Json]:
        health = "ready" if self.polls > self.polls_until_ready else "starting"
        known = self.report["status"]["services"][0]["replicas"]
        return [{**one, "id": f"{name}/1/{index}", "health": health} for index, one in enumerate(known)]

    def submit(self, body: Json) -> tuple[int, Json]:
        if self.refuse_spec is not None:
            return self.refuse_spec
        changed = not self.specs or self.specs[-1]["spec"] != body["spec"]
        if changed:
            self.polls = 0
            self.specs.append(body)
            self.tell("RevisionAdded", body["spec"]["service"])
            self.tell("ActionStarted", body["spec"]["service"], action="EnsureGateway")
        return 200, {"service": body["spec"]["service"], "revision": 1, "changed": changed}

    def tell(self, kind: str, service: str, **detail: Any) -> None:
        number = len(self.events) + 1
        known = {"sequence": number, "at": time.time(), "actor": "control", "principal": "control", "hash": "0" * 64}
        about = {"service": service, "revision": 1, "kind": kind, "detail": detail}
        self.events.append({**known, **about})

    def remove(self, name: str) -> Json:
        self.removed.append(name)
        self.specs = []
        return {"service": name, "removed": True}

    def application(self) -> Starlette:
        async def healthz(_: Request) -> JSONResponse:
            return JSONResponse({"version": "0.1.0", "pid": 1, "epoch": 1, "observation": 1})

        async def status(_: Request) -> JSONResponse:
            return JSONResponse(self.status())

        async def submit(request: Request) -> JSONResponse:
            code, answer = self.submit(await request.json())
            return JSONResponse(answer, status_code=code)

        async def plan(_: Request) -> JSONResponse:
            answers = [one for one in self.report["answers"] if one["stage"] == "preflight"]
            action = {"action": "EnsurePart", "role": "policy", "index": 0}
            return JSONResponse({"observation": 7, "actions": [action], "answers": answers, "blocked": False})

        async def check(_: Request) -> JSONResponse:
            return JSONResponse({"answers": self.report["answers"] if self.specs else []})

        async def live(_: Request) -> JSONResponse:
            self.proven_again += 1
            answers = self.report["answers"] if self.live_answers is None else self.live_answers
            return JSONResponse({"answers": answers})

        async def events(request: Request) -> JSONResponse:
            after = int(request.query_params.get("after", "0"))
            found = [one for one in self.events if one["sequence"] > after]
            if not found:
                await asyncio.sleep(min(0.05, float(request.query_params.get("wait_s", "0"))))
            return JSONResponse({"events": found})

        async def report(_: Request) -> JSONResponse:
            return JSONResponse(self.report)

        async def remove(request: Request) -> JSONResponse:
            return JSONResponse(self.remove(request.path_params["name"]))

        return Starlette(
            routes=[
                Route("/v1/healthz", healthz),
                Route("/v1/status", status),
                Route("/v1/specs", submit, methods=["POST"]),
                Route("/v1/plan", plan, methods=["POST"]),
                Route("/v1/check", check),
                Route("/v1/check/live", live, methods=["POST"]),
                Route("/v1/events", events),
                Route("/v1/report", report),
                Route("/v1/services/{name}", remove, methods=["DELETE"]),
            ]
        )


@contextlib.contextmanager
def running(state_dir: Path) -> Iterator[FakeControl]:
    """A fake control on the socket of this state directory."""
    paths = StatePaths.of(state_dir)
    paths.make()
    fake = FakeControl(paths)
    config = uvicorn.Config(fake.application(), uds=str(paths.control_socket), log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started
    try:
        yield fake
    finally:
        server.should_exit = True
        thread.join(timeout=10)

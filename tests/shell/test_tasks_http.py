"""What the queue's HTTP interface says to odd requests, in this process, without workers."""

from __future__ import annotations

import time
from typing import Any, Iterator

import pytest
from starlette.testclient import TestClient

from gonogo.runtimes.paths import StatePaths
from gonogo.spec.queue import Queue as AskedOfQueue
from gonogo.tasks.bounds import Bounds
from gonogo.tasks.database import GroupWriter
from gonogo.tasks.http.desk import KEY_HEADER, Desk
from gonogo.tasks.http.server import application
from gonogo.tasks.places import open_queue

BASE = "http://tasks"


class NoBell:
    """Nobody works here."""

    def ring(self) -> bool:
        return True


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    queue = open_queue(StatePaths.of(tmp_path_factory.mktemp("http") / "state"))
    writer, told = GroupWriter(queue.database), list[str]()
    desk = Desk(
        queue=queue,
        writer=writer,
        bell=NoBell(),  # type: ignore[arg-type]
        bounds=Bounds(AskedOfQueue),
        wall=time.time,
        tell=told.append,
    )
    with TestClient(application(desk), BASE, headers={KEY_HEADER: "alice00000"}, follow_redirects=False) as made:
        yield made
    writer.close()
    assert told == [], "nothing that is asked here is a fault of ours"


def error(response: Any, status: int, code: str) -> Any:
    assert response.status_code == status, response.text
    found = response.json()["error"]
    assert found["code"] == code, found
    return found


@pytest.mark.parametrize("path", ["/v1/files/", "/v1/tasks/", "/v1/batches/", "/v1/tasks/task_1/"])
def test_a_slash_too_many_is_told_and_never_a_redirect_that_leaves_tls(client: TestClient, path: str) -> None:
    for method in ("GET", "POST"):
        found = error(client.request(method, path), 404, "unknown_path")
        assert found["message"].startswith(f"There is no {method} {path}. There are: POST /v1/tasks, ")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/files", "GET, POST"),
        ("PATCH", "/v1/files/file-1", "DELETE, GET"),
        ("DELETE", "/v1/batches/batch_1", "GET"),
        ("GET", "/v1/batches/batch_1/cancel", "POST"),
    ],
)
def test_a_wrong_method_is_told_which_there_are(client: TestClient, method: str, path: str, allowed: str) -> None:
    answer = client.request(method, path)
    found = error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed
    assert found["message"] == f"There is no {method} {path}; this path has {allowed}."


def test_an_odd_path_is_not_repeated(client: TestClient) -> None:
    for path in ("/v1/tasks/a/" + "x" * 200, "/v1/tasks/a/b:%20c", "/v1/tasks/a/%e4%b8%ad"):
        assert error(client.get(path), 404, "unknown_path")["message"].startswith("There is no GET such path. ")


FILE = ("file", ("in.jsonl", b"{}"))
PURPOSE = ("purpose", (None, b"batch"))


def upload(client: TestClient, *parts: Any) -> Any:
    return client.post("/v1/files", files=list(parts))


@pytest.mark.parametrize(
    ("parts", "code", "message"),
    [
        ((PURPOSE,), "invalid_upload", "An upload has one field `file`, this one has none."),
        ((PURPOSE, FILE, FILE), "invalid_upload", "An upload has one field `file`, this one has 2."),
        ((FILE,), "invalid_purpose", "`purpose` must be batch, and is missing."),
        ((FILE, ("purpose", (None, b"fine-tune"))), "invalid_purpose", "`purpose` must be batch, and is another."),
        (
            (PURPOSE, ("expires_after[seconds]", (None, b"3600")), FILE),
            "unknown_field",
            "There is no field `expires_after`; there are purpose, file.",
        ),
        (
            (PURPOSE, ("secret words", (None, b"x")), FILE),
            "unknown_field",
            "There is no field `with an odd name`; there are purpose, file.",
        ),
    ],
)
def test_an_upload_says_which_field_is_wrong_and_nothing_of_it_is_kept(
    client: TestClient, parts: Any, code: str, message: str
) -> None:
    assert error(upload(client, *parts), 400, code)["message"] == message
    assert client.get("/v1/files").json()["data"] == []


def test_an_upload_that_breaks_off_is_told_so(client: TestClient) -> None:
    whole = b'--B\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n'
    sent = client.post("/v1/files", content=whole, headers={"content-type": "multipart/form-data; boundary=B"})
    assert "ended before its closing boundary" in error(sent, 400, "invalid_upload")["message"]

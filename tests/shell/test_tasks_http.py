"""What the queue's HTTP interface says to odd requests, in this process, without workers."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any, Iterator

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from gonogo.runtimes.paths import StatePaths
from gonogo.spec.queue import Queue as AskedOfQueue
from gonogo.tasks.asked import NotAllowed
from gonogo.tasks.bounds import Bounds
from gonogo.tasks.database import GroupWriter
from gonogo.tasks.http.desk import KEY_HEADER, Desk, Reply, answering
from gonogo.tasks.http.server import application
from gonogo.tasks.places import open_queue
from tests.shell.tasks_parts import chat

BASE = "http://tasks"


class NoBell:
    """Nobody works here."""

    def ring(self) -> bool:
        return True


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    queue = open_queue(StatePaths.of(tmp_path_factory.mktemp("http") / "state"))
    writer, told = GroupWriter(queue.database), list[str]()
    yield Desk(
        queue=queue,
        writer=writer,
        bell=NoBell(),  # type: ignore[arg-type]
        bounds=Bounds(AskedOfQueue),
        wall=time.time,
        tell=told.append,
    )
    writer.close()
    assert told == [], "nothing that is asked here is a fault of ours"


@pytest.fixture
def client(desk: Desk) -> Iterator[TestClient]:
    with TestClient(application(desk), BASE, headers={KEY_HEADER: "alice00000"}, follow_redirects=False) as made:
        yield made


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


def begin(client: TestClient, **fields: Any) -> Any:
    asked = {"endpoint": "/v1/chat/completions", "completion_window": "1h", **fields}
    sent = json.dumps({name: value for name, value in asked.items() if value != "absent"})
    return client.post("/v1/batches", content=sent)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("absent", "`input_file_id` must be the id of an uploaded file, and is missing."),
        (None, "`input_file_id` must be the id of an uploaded file, and is missing."),
        (["file-1"], "`input_file_id` must be the id of an uploaded file, and is a list."),
    ],
)
def test_a_batch_without_a_file_is_told_which_field_it_is(client: TestClient, given: Any, message: str) -> None:
    found = error(begin(client, input_file_id=given), 400, "invalid_file")
    assert (found["message"], found["param"]) == (message, "input_file_id")


@pytest.mark.parametrize("file_id", ["file-none", "", "\ud800", "\u4e2d"])
def test_a_batch_of_a_file_that_is_not_there_names_the_field(client: TestClient, file_id: str) -> None:
    assert error(begin(client, input_file_id=file_id), 404, "not_found")["param"] == "input_file_id"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ([], "`metadata` must be an object, it is a list."),
        ({str(n): "x" for n in range(17)}, "`metadata` has 17 entries; there may be 16."),
        ({"a": "b", "n" * 65: "x"}, "Entry 2 of `metadata`: its name has 65 characters; there may be 64."),
        ({"a": 1}, "Entry 1 of `metadata`: its value must be a string, it is a number."),
        ({"a": "x" * 513}, "Entry 1 of `metadata`: its value has 513 characters; there may be 512."),
        (
            {"a": "\ud800"},
            "Entry 1 of `metadata`: it holds half a character: an escape from \\ud800 to \\udfff without its pair.",
        ),
    ],
)
def test_what_is_wrong_with_metadata_is_told_by_its_place(client: TestClient, metadata: Any, message: str) -> None:
    file_id = upload(client, PURPOSE, FILE).json()["id"]
    found = error(begin(client, input_file_id=file_id, metadata=metadata), 400, "invalid_metadata")
    assert (found["message"], found["param"]) == (message, "metadata")
    assert client.get("/v1/batches").json()["data"] == []
    assert client.delete(f"/v1/files/{file_id}").status_code == 200


def test_half_a_character_of_an_engine_goes_out_as_it_came() -> None:
    assert Reply({"said": "\ud83d"}).body == b'{"said":"\\ud83d"}'
    assert Reply({"said": "\u4e2d"}).body == '{"said":"\u4e2d"}'.encode()


def test_a_bug_of_ours_is_told_as_ours_and_its_words_are_told_nobody(desk: Desk) -> None:
    async def broken(_desk: Desk, _request: Any) -> Any:
        raise KeyError("secret words")

    told = list[str]()
    answer = answering(replace(desk, tell=told.append), broken)
    with TestClient(Starlette(routes=[Route("/v1/tasks", answer)]), BASE) as client:
        sent = client.get("/v1/tasks")
    error(sent, 500, "queue_error")
    assert sent.headers["x-gonogo-wrapped"] == "1" and "secret" not in sent.text
    assert len(told) == 1 and told[0].startswith("KeyError at ") and "secret" not in told[0]


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/v1/tasks?status=dead", "limit, after, state"),
        ("/v1/tasks/task_1?status=dead", "wait"),
        ("/v1/tasks/task_1/steps?status=dead", "limit, after"),
        ("/v1/files?status=dead", "limit, after, purpose, order"),
        ("/v1/batches?status=dead", "limit, after"),
    ],
)
def test_a_filter_that_there_is_not_is_told_and_not_dropped(client: TestClient, path: str, known: str) -> None:
    found = error(client.get(path), 400, "invalid_query")
    assert (found["message"], found["param"]) == (f"There is no parameter `status`; there are {known}.", "status")


@pytest.mark.parametrize("what", ["tasks", "files", "batches"])
def test_a_page_after_what_is_not_there_names_the_parameter(client: TestClient, what: str) -> None:
    assert error(client.get(f"/v1/{what}?after=none"), 404, "not_found")["param"] == "after"


def test_files_are_listed_in_either_order_page_by_page(client: TestClient) -> None:
    made = [upload(client, PURPOSE, FILE).json()["id"] for _ in range(3)]
    for order, wanted in (("asc", made), ("desc", made[::-1])):
        first = client.get("/v1/files", params={"order": order, "limit": 2}).json()
        rest = client.get("/v1/files", params={"order": order, "after": first["last_id"]}).json()
        assert [one["id"] for page in (first, rest) for one in page["data"]] == wanted
        assert (first["has_more"], rest["has_more"]) == (True, False)
    assert error(client.get("/v1/files?order=newest"), 400, "invalid_query")["param"] == "order"
    for file_id in made:
        client.delete(f"/v1/files/{file_id}")


def test_a_header_that_stands_for_one_task_is_not_dropped_for_a_list(client: TestClient) -> None:
    sent = {"json": {"tasks": [{"body": chat("a")}]}, "headers": {"idempotency-key": "k"}}
    error(client.post("/v1/tasks", **sent), 400, "invalid_name")
    assert client.get("/v1/tasks").json()["data"] == []


def test_a_look_may_wait_for_nothing(client: TestClient) -> None:
    task_id = client.post("/v1/tasks", json={"body": chat("a")}).json()["id"]
    assert client.get(f"/v1/tasks/{task_id}?wait=0").json()["state"] == "queued"
    assert error(client.get(f"/v1/tasks/{task_id}?wait=61"), 400, "invalid_query")["param"] == "wait"


def test_who_may_not_is_told_as_the_gateway_tells_it(desk: Desk) -> None:
    async def barred(_desk: Desk, _request: Any) -> Any:
        raise NotAllowed("insufficient_scope", "The API key may not run agents.", "agent")

    with TestClient(Starlette(routes=[Route("/v1/tasks", answering(desk, barred))]), BASE) as client:
        assert error(client.get("/v1/tasks"), 403, "insufficient_scope")["type"] == "permission_error"

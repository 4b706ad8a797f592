"""The queue over HTTP: tasks of our own, and OpenAI's files and batches as its stock SDK drives them."""

from __future__ import annotations

import json
import time
from typing import Any, Iterator

import httpx
import pytest

from tests.shell.policy_parts import until
from tests.shell.tasks_parts import QueueParts, Said, chat, content_of, echo, jsonl, line

CANARY = "canary-5f1c9b"


def answer(body: Any) -> Said:
    text = content_of(body)
    if text == "bad":
        return Said(status=400, body={"error": {"code": "bad_request"}})
    return Said(after_s=30.0) if text == "slow" else echo(body)


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueueParts]:
    with QueueParts(tmp_path_factory.mktemp("queue") / "state", answer) as parts:
        parts.start("valkey", "tasks", "worker")
        yield parts


@pytest.fixture
def client(queue: QueueParts) -> Iterator[httpx.Client]:
    with queue.client() as made:
        yield made


def ended(client: httpx.Client, task_id: str) -> Any:
    return client.get(f"/v1/tasks/{task_id}", params={"wait": 30}).json()


def leave(client: httpx.Client, text: str, **fields: Any) -> httpx.Response:
    return client.post("/v1/tasks", json={"body": chat(text), **fields})


def error(response: httpx.Response, status: int, code: str) -> Any:
    assert response.status_code == status, response.text
    found = response.json()["error"]
    assert found["code"] == code, found
    assert CANARY not in response.text
    return found


def test_a_task_that_was_left_is_answered_for_its_owner_alone(queue: QueueParts, client: httpx.Client) -> None:
    made = leave(client, "hello")
    assert made.status_code == 202
    task = ended(client, made.json()["id"])
    assert (task["state"], task["error"]) == ("done", None)
    assert task["result"]["body"]["choices"][0]["message"]["content"] == "echo hello"
    assert queue.gateway.asked[-1] == (queue.key.key_id, "hello"), "what a worker does counts for the owner"
    with queue.client("another") as other:
        error(other.get(f"/v1/tasks/{task['id']}"), 404, "not_found")
        error(other.post(f"/v1/tasks/{task['id']}/cancel"), 404, "not_found")
        assert task["id"] not in {one["id"] for one in other.get("/v1/tasks").json()["data"]}
    with httpx.Client(transport=client._transport, base_url="http://tasks") as nobody:
        error(nobody.get("/v1/tasks"), 400, "no_key_id")


def test_an_idempotency_key_is_one_task_however_often_it_is_sent(client: httpx.Client) -> None:
    first = leave(client, "once", idempotency_key="k-1").json()
    again = client.post("/v1/tasks", json={"body": chat("once")}, headers={"idempotency-key": "k-1"}).json()
    assert first["id"] == again["id"]
    error(leave(client, "another", idempotency_key="k-1"), 400, "idempotency_key_reused")


def test_tasks_are_listed_newest_first_in_pages(client: httpx.Client) -> None:
    made = client.post("/v1/tasks", json={"tasks": [{"body": chat(f"t{n}")} for n in range(5)]}).json()["data"]
    names = [one["id"] for one in reversed(made)]
    first = client.get("/v1/tasks", params={"limit": 2}).json()
    assert [one["id"] for one in first["data"]] == names[:2] and first["has_more"]
    rest = client.get("/v1/tasks", params={"limit": 3, "after": first["last_id"]}).json()
    assert [one["id"] for one in rest["data"]] == names[2:]


def test_what_the_gateway_refuses_is_failed_with_its_words(client: httpx.Client) -> None:
    task = ended(client, leave(client, "bad").json()["id"])
    assert (task["state"], task["error"]["code"]) == ("failed", "http_400")
    assert task["result"] == {"status": 400, "request_id": "req-1", "body": {"error": {"code": "bad_request"}}}


def test_a_task_that_runs_is_cancelled_and_its_request_given_up(queue: QueueParts, client: httpx.Client) -> None:
    task_id = leave(client, "slow").json()["id"]
    until(lambda: ended_or(client, task_id) == "leased", 20)
    assert client.post(f"/v1/tasks/{task_id}/cancel").json()["state"] == "cancelled"
    until(lambda: queue.gateway.running == 0, 20)
    assert client.post(f"/v1/tasks/{task_id}/cancel").json()["state"] == "cancelled"


def ended_or(client: httpx.Client, task_id: str) -> str:
    return str(client.get(f"/v1/tasks/{task_id}").json()["state"])


def test_a_task_whose_window_ends_fails_as_expired(client: httpx.Client) -> None:
    task_id = leave(client, "slow", window="3s").json()["id"]
    until(lambda: ended_or(client, task_id) == "leased", 20)
    until(lambda: ended_or(client, task_id) == "failed", 20)
    told = client.get(f"/v1/tasks/{task_id}").json()["error"]
    assert told["code"] == "expired" and "it was being asked when its time was up" in told["message"]


@pytest.mark.parametrize(
    ("sent", "code", "param"),
    [
        ({}, "invalid_body", "body"),
        ({"body": []}, "invalid_body", "body"),
        ({"body": {}, CANARY + " ": 1}, "unknown_field", "with an odd name"),
        ({"body": {}, "extra": 1}, "unknown_field", "extra"),
        ({"body": {"stream": True}}, "stream_not_possible", "body.stream"),
        ({"body": {"model": 7}}, "invalid_model", "body.model"),
        ({"body": {}, "url": "/v1/models"}, "invalid_url", "url"),
        ({"body": {}, "window": "9w"}, "invalid_window", "window"),
        ({"body": {}, "window": "31d"}, "invalid_window", "window"),
        ({"body": {}, "idempotency_key": ""}, "invalid_name", "idempotency_key"),
        ({"tasks": []}, "invalid_tasks", "tasks"),
        ({"tasks": [{"body": {}}, 7]}, "invalid_tasks", "tasks[1]"),
        ({"tasks": [{"body": {}}, {"body": None}]}, "invalid_body", "tasks[1].body"),
    ],
)
def test_what_is_wrong_with_a_task_is_named_and_nothing_is_recorded(
    client: httpx.Client, sent: Any, code: str, param: str
) -> None:
    before = client.get("/v1/tasks").json()["first_id"]
    found = error(client.post("/v1/tasks", json=sent), 400, code)
    assert found["param"] == param and found["type"] == "invalid_request_error"
    assert client.get("/v1/tasks").json()["first_id"] == before


def test_odd_requests_get_the_envelope_too(client: httpx.Client) -> None:
    error(client.post("/v1/tasks", content=b"{"), 400, "invalid_json")
    error(client.post("/v1/tasks", content=b"[" * 100_000), 400, "invalid_json")
    error(client.get("/v1/tasks/none"), 404, "not_found")
    error(client.get("/v1/tasks", params={"limit": "0"}), 400, "invalid_query")
    error(client.get("/v1/tasks", params={"state": CANARY}), 400, "invalid_query")
    error(client.get("/v1/nothing"), 404, "unknown_path")
    error(client.put("/v1/tasks"), 405, "method_not_allowed")


# OpenAI's files and batches.


def upload(client: httpx.Client, content: bytes, name: str = "in.jsonl", purpose: str = "batch") -> httpx.Response:
    return client.post("/v1/files", data={"purpose": purpose}, files={"file": (name, content)})


def finished(client: httpx.Client, batch_id: str, within_s: float = 60.0) -> Any:
    until(lambda: client.get(f"/v1/batches/{batch_id}").json()["status"] in OVER, within_s)
    return client.get(f"/v1/batches/{batch_id}").json()


OVER = ("completed", "cancelled", "expired", "failed")


def begun(client: httpx.Client, content: bytes, window: str = "24h") -> str:
    file = upload(client, content).json()
    given = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": window}
    made = client.post("/v1/batches", json=given)
    assert made.status_code == 200, made.text
    return str(made.json()["id"])


def lines_of(client: httpx.Client, file_id: str) -> list[Any]:
    return [json.loads(one) for one in client.get(f"/v1/files/{file_id}/content").text.splitlines()]


def test_the_stock_sdk_uploads_runs_and_downloads_a_batch(queue: QueueParts) -> None:
    openai = pytest.importorskip("openai")
    http = pytest.importorskip("httpx2")
    transport = http.HTTPTransport(uds=str(queue.paths.part_socket("tasks", 0)))
    sdk = openai.OpenAI(
        base_url="http://tasks/v1",
        api_key="any",
        default_headers={"x-gonogo-key-id": queue.key.key_id},
        http_client=http.Client(transport=transport),
    )
    text = jsonl(*(line(f"r-{n}", f"question {n}") for n in range(20)))
    file = sdk.files.create(file=("questions.jsonl", text), purpose="batch")
    assert (file.bytes, file.filename, file.purpose) == (len(text), "questions.jsonl", "batch")
    batch = sdk.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"run": CANARY}
    )
    assert batch.status == "validating"
    until(lambda: sdk.batches.retrieve(batch.id).status == "completed", 60)
    batch = sdk.batches.retrieve(batch.id)
    assert batch.metadata == {"run": CANARY} and batch.error_file_id is None
    assert batch.request_counts is not None and batch.request_counts.completed == 20
    assert batch.in_progress_at and batch.finalizing_at and batch.completed_at
    answers = [json.loads(one) for one in sdk.files.content(batch.output_file_id).text.splitlines()]
    assert [one["custom_id"] for one in answers] == [f"r-{n}" for n in range(20)]
    assert answers[7]["response"]["status_code"] == 200
    assert answers[7]["response"]["body"]["choices"][0]["message"]["content"] == "echo question 7"
    assert batch.id in [one.id for one in sdk.batches.list()]
    assert {file.id, batch.output_file_id} <= {one.id for one in sdk.files.list()}
    assert sdk.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.files.content(file.id)


def test_broken_lines_are_told_by_their_number_and_the_good_ones_run(client: httpx.Client) -> None:
    content = jsonl(
        line("good-1"),
        b"{not json",
        line("good-2"),
        {**line("x"), "method": "GET"},
        line("good-1"),
        {**line("x2"), "url": "/v1/completions"},
        {"method": "POST"},
        line("refused", "bad"),
        b"",
        line("good-3", url="/v1/chat/completions"),
        b"7",
        {**line("x3"), "extra": 1},
        {**line("x4"), "body": {"stream": True}},
        b"\xff\xfe",
    )
    batch = finished(client, begun(client, content))
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 13, "completed": 3, "failed": 10}
    assert [one["custom_id"] for one in lines_of(client, batch["output_file_id"])] == ["good-1", "good-2", "good-3"]
    told = {one["line"]: one for one in lines_of(client, batch["error_file_id"])}
    assert {number: one["error"]["code"] for number, one in told.items() if one["error"]} == {
        2: "invalid_json_line",
        4: "invalid_method",
        5: "duplicate_custom_id",
        6: "mismatched_url",
        7: "missing_custom_id",
        11: "invalid_json_line",
        12: "unknown_field",
        13: "stream_not_possible",
        14: "invalid_json_line",
    }
    assert told[8]["response"]["status_code"] == 400 and told[8]["custom_id"] == "refused"
    assert told[4]["custom_id"] == "x"


def test_a_batch_that_is_cancelled_keeps_the_answers_that_there_are(client: httpx.Client) -> None:
    batch_id = begun(client, jsonl(line("quick"), *(line(f"s-{n}", "slow") for n in range(50))))
    until(lambda: client.get(f"/v1/batches/{batch_id}").json()["request_counts"]["completed"] == 1, 30)
    assert client.post(f"/v1/batches/{batch_id}/cancel").json()["status"] == "cancelling"
    batch = finished(client, batch_id)
    assert (batch["status"], batch["request_counts"]["completed"]) == ("cancelled", 1)
    assert [one["custom_id"] for one in lines_of(client, batch["output_file_id"])] == ["quick"]
    assert {one["error"]["code"] for one in lines_of(client, batch["error_file_id"])} == {"batch_cancelled"}
    error(client.post(f"/v1/batches/{batch_id}/cancel"), 400, "batch_not_cancellable")


def test_a_batch_whose_window_ends_is_expired_with_what_was_done(client: httpx.Client) -> None:
    batch = finished(client, begun(client, jsonl(line("quick"), line("late", "slow")), window="4s"))
    assert batch["status"] == "expired" and batch["expired_at"]
    assert [one["custom_id"] for one in lines_of(client, batch["output_file_id"])] == ["quick"]
    (late,) = lines_of(client, batch["error_file_id"])
    assert (late["custom_id"], late["error"]["code"]) == ("late", "batch_expired")


def test_an_empty_file_and_a_removed_one_fail_the_batch(client: httpx.Client) -> None:
    batch = finished(client, begun(client, b"\n\n"))
    assert (batch["status"], batch["errors"]["data"][0]["code"]) == ("failed", "empty_file")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"endpoint": "/v1/models"}, "invalid_endpoint"),
        ({"completion_window": None}, "invalid_window"),
        ({"completion_window": "soon"}, "invalid_window"),
        ({"metadata": {"a": 1}}, "invalid_metadata"),
        ({"metadata": []}, "invalid_metadata"),
        ({"input_file_id": "file-none"}, "not_found"),
        ({"more": 1}, "unknown_field"),
    ],
)
def test_what_is_wrong_with_a_batch_is_named(client: httpx.Client, changes: Any, code: str) -> None:
    file = upload(client, jsonl(line("a"))).json()
    given = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "1h"}
    error(client.post("/v1/batches", json={**given, **changes}), 404 if code == "not_found" else 400, code)


def test_uploads_that_are_none_are_refused_and_leave_nothing(queue: QueueParts, client: httpx.Client) -> None:
    folder = queue.paths.root / "tasks" / "files"
    before = sorted(path.name for path in folder.iterdir())
    error(client.post("/v1/files", content=b"x"), 400, "invalid_upload")
    error(upload(client, b"x", purpose="fine-tune"), 400, "invalid_purpose")
    error(client.post("/v1/files", files={"purpose": (None, "batch")}), 400, "invalid_upload")
    head = {"content-type": "multipart/form-data; boundary=b"}
    cut = b'--b\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\nhalf'
    error(client.post("/v1/files", content=cut, headers=head), 400, "invalid_upload")
    error(client.post("/v1/files", content=b"--no\r\n", headers=head), 400, "invalid_upload")
    error(
        client.post("/v1/files", files=[("purpose", (None, "x" * 2000)), ("file", ("f", b"1"))]), 400, "invalid_upload"
    )
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000])
def test_a_file_comes_back_byte_for_byte(client: httpx.Client, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    file = upload(client, content[:size], name="ünïcode ✓.jsonl").json()
    assert file["bytes"] == size
    assert client.get(f"/v1/files/{file['id']}/content").content == content[:size]


def test_what_clients_send_is_nowhere_in_the_files(queue: QueueParts, client: httpx.Client) -> None:
    task = ended(client, leave(client, f"{CANARY} in a prompt").json()["id"])
    assert CANARY in json.dumps(task["result"])
    name = f"{CANARY}.jsonl"
    file = upload(client, jsonl(line(f"{CANARY}-1", f"{CANARY} in a line")), name=name).json()
    assert file["filename"] == name
    given = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "1h"}
    batch_id = client.post("/v1/batches", json={**given, "metadata": {"about": CANARY}}).json()["id"]
    assert CANARY in client.get(f"/v1/files/{finished(client, batch_id)['output_file_id']}/content").text
    time.sleep(1.5)
    read = [path for path in queue.paths.root.rglob("*") if path.is_file()]
    assert any(path.name.endswith("-wal") for path in read) and any(path.suffix == ".aof" for path in read)
    assert [str(path) for path in read if CANARY.encode() in path.read_bytes()] == []

"""The store with a real database: desired state, lease, keys, findings, journal, events."""

from __future__ import annotations

import sqlite3
import stat
from dataclasses import replace
from pathlib import Path
from typing import Callable, Iterator

import pytest
import sqlalchemy as sa

from gonogo.actions.model import EnsureReplica, Promote, Reject
from gonogo.checks.finding import Answer, Condition, Finding, Stage, Verdict
from gonogo.engines.model import Placement
from gonogo.facts.replica import ReplicaName
from gonogo.security.keys import KeyRow
from gonogo.spec import Expect, Spec
from gonogo.store import open_store
from gonogo.store.answers import KEPT_PAST_ANSWERS, KEPT_REVISIONS
from gonogo.store.change import Change
from gonogo.store.faults import LeaseNeeded, StaleEpoch, UnknownKey, UnknownRevision
from gonogo.store.kinds import KINDS
from gonogo.store.migrations import MIGRATIONS
from gonogo.store.sqlite import APPLICATION_ID
from gonogo.store.store import Store
from gonogo.store.tables import METADATA

SPEC = Spec(service="m", model="smollm2-135m")
OTHER = Spec(service="m", model="smollm2-135m", expect=Expect(concurrent_requests=9))
KEY = KeyRow(
    key_id="0000000001",
    secret_hash="a" * 64,
    name="laptop",
    service="m",
    revision=None,
    scopes=("inference",),
    created_at=1000.0,
    expires_at=None,
    revoked_at=None,
)
START = EnsureReplica(
    placement=Placement(
        name=ReplicaName(service="m", revision=1, index=0), host="h", address="127.0.0.1", port=9000, threads=1
    ),
    why="it does not run",
)


class Clock:
    """Unix seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Store]:
    """One store of each backend; PostgreSQL is added to the list when it comes."""
    assert request.param == "sqlite"
    store = open_store(tmp_path / "state" / "gonogo.db", clock=clock)
    yield store
    store.close()


@pytest.fixture
def epoch(store: Store) -> int:
    return store.acquire_lease("control on h")


def do(store: Store, epoch: int | None, act: Callable[[Change], object]) -> object:
    with store.change(epoch=epoch, actor="control", principal="alice", request_id="r-1") as change:
        return act(change)


def kinds(store: Store) -> list[str]:
    return [event.kind for event in store.events()]


def test_the_files_are_for_the_owner_only(store: Store, epoch: int) -> None:
    names = {path.name: stat.S_IMODE(path.stat().st_mode) for path in store.path.parent.iterdir()}
    assert names == dict.fromkeys(("gonogo.db", "gonogo.db-wal", "gonogo.db-shm", "chain-head"), 0o600)
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_a_change_survives_a_power_cut(store: Store) -> None:
    with store._backend.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2


def test_the_tables_of_the_queries_are_those_of_the_migrations(store: Store) -> None:
    with store._backend.reading() as connection:
        seen = sa.inspect(connection)
        assert set(seen.get_table_names()) == set(METADATA.tables)
        for name, table in METADATA.tables.items():
            columns = {column["name"]: column["nullable"] for column in seen.get_columns(name)}
            assert set(columns) == set(table.columns.keys()), name
            required = {column.name for column in table.columns if not column.nullable and not column.primary_key}
            assert required == {
                name for name, nullable in columns.items() if not nullable and not table.columns[name].primary_key
            }


def test_a_new_store_holds_nothing(store: Store) -> None:
    assert store.lease() is None
    assert store.services() == ()
    assert store.keys() == ()
    assert store.events() == ()
    assert store.head().hash == "0" * 64


def test_each_holder_of_the_lease_has_the_next_epoch(store: Store, clock: Clock) -> None:
    assert [store.acquire_lease("a"), store.acquire_lease("b")] == [1, 2]
    lease = store.lease()
    assert lease is not None
    assert (lease.epoch, lease.holder, lease.since) == (2, "b", clock.now)
    assert kinds(store) == ["LeaseAcquired", "LeaseAcquired"]


def test_a_holder_whose_lease_was_taken_is_refused_and_writes_nothing(store: Store, epoch: int) -> None:
    store.acquire_lease("another")
    before = store.head()
    with pytest.raises(StaleEpoch) as refusal:
        do(store, epoch, lambda change: change.add_revision(SPEC))
    assert (refusal.value.seen, refusal.value.current) == (1, 2)
    assert (store.head(), store.services()) == (before, ())


@pytest.mark.parametrize("epoch_given", [0, 7])
def test_an_epoch_that_nobody_was_given_is_refused(store: Store, epoch: int, epoch_given: int) -> None:
    with pytest.raises(StaleEpoch):
        do(store, epoch_given, lambda change: change.add_key(KEY))


@pytest.mark.parametrize(
    "act",
    [
        lambda change: change.add_revision(SPEC),
        lambda change: change.set_serving("m", 1),
        lambda change: change.reject("m", 1, "R", ""),
        lambda change: change.forget_service("m"),
        lambda change: change.event("ControlStarted"),
        lambda change: change.add_answers(Stage.LIVE, "m", 1, 1, ()),
        lambda change: change.journal_started(START),
        lambda change: change.journal_finished(START),
        lambda change: change.journal_abandoned(),
        lambda change: change.journal_failed(START, "x"),
    ],
)
def test_without_the_lease_only_keys_and_removals_may_be_written(
    store: Store, epoch: int, act: Callable[[Change], object]
) -> None:
    do(store, epoch, lambda change: change.add_revision(SPEC))
    before = store.head()
    with pytest.raises(LeaseNeeded):
        do(store, None, act)
    assert store.head() == before


def test_keys_and_removals_need_no_lease(store: Store, epoch: int) -> None:
    do(store, epoch, lambda change: change.add_revision(SPEC))
    do(store, None, lambda change: change.add_key(KEY))
    do(store, None, lambda change: change.revoke_key(KEY.key_id))
    assert do(store, None, lambda change: change.remove_service("m")) is True
    assert kinds(store)[-3:] == ["KeyAdded", "KeyRevoked", "RemovalRequested"]


def test_a_block_that_raises_writes_nothing(store: Store, epoch: int) -> None:
    before = store.head()
    with pytest.raises(RuntimeError), store.change(epoch=epoch, actor="control", principal="alice") as change:
        change.add_revision(SPEC)
        change.add_key(KEY)
        raise RuntimeError
    assert (store.head(), store.services(), store.keys()) == (before, (), ())


def test_the_first_spec_is_revision_one_and_desired(store: Store, epoch: int) -> None:
    revision = do(store, epoch, lambda change: change.add_revision(SPEC))
    (service,) = store.services()
    assert service.desired == revision == store.revision("m", 1)
    assert (service.serving, service.rejected, service.removed) == (None, None, False)


def test_an_equal_spec_is_the_same_revision_and_no_event(store: Store, epoch: int) -> None:
    one = do(store, epoch, lambda change: change.add_revision(SPEC))
    before = store.head()
    assert do(store, epoch, lambda change: change.add_revision(Spec.model_validate(SPEC.model_dump()))) == one
    assert store.head() == before


def test_another_spec_is_the_next_revision_and_the_old_one_goes_on_serving(
    store: Store, epoch: int, clock: Clock
) -> None:
    do(store, epoch, lambda change: (change.add_revision(SPEC), change.set_serving("m", 1)))
    do(store, epoch, lambda change: change.add_revision(OTHER))
    (service,) = store.services()
    assert service.serving is not None
    assert (service.desired.number, service.serving.number, service.serving_since) == (2, 1, clock.now)
    assert [revision.number for revision in store.revisions("m")] == [1, 2]


def test_whether_the_old_revision_ends_first_is_kept_with_the_change_and_not_with_the_next_one(
    store: Store, epoch: int, clock: Clock
) -> None:
    do(store, epoch, lambda change: (change.add_revision(SPEC), change.set_serving("m", 1)))
    do(store, epoch, lambda change: change.add_revision(OTHER, True))
    (service,) = store.services()
    assert (service.in_place_since, service.leaving) == (clock.now, service.serving)
    do(store, epoch, lambda change: change.reject("m", 2, "AnswersWrong", "no"))
    (service,) = store.services()
    assert (service.in_place_since, service.leaving) == (clock.now, None)
    do(store, epoch, lambda change: change.add_revision(OTHER))
    (service,) = store.services()
    assert (service.desired.number, service.in_place_since, service.rejected) == (2, None, None)


def test_going_back_to_what_serves_makes_no_new_revision(store: Store, epoch: int) -> None:
    do(store, epoch, lambda change: (change.add_revision(SPEC), change.set_serving("m", 1)))
    do(store, epoch, lambda change: (change.add_revision(OTHER), change.reject("m", 2, "ModelMissing", "gone")))
    do(store, epoch, lambda change: change.add_revision(SPEC))
    (service,) = store.services()
    assert (service.desired.number, service.rejected) == (1, None)
    assert kinds(store)[-1] == "RevisionAskedAgain"


def test_a_rejected_revision_says_why_and_is_wanted_again_when_asked_again(store: Store, epoch: int) -> None:
    do(store, epoch, lambda change: change.add_revision(SPEC))
    do(store, epoch, lambda change: change.reject("m", 1, "ModelMissing", {"path": "/x", "bytes": 0}))
    rejection = store.rejection("m", 1)
    assert rejection is not None
    assert (rejection.reason, rejection.detail) == ("ModelMissing", {"path": "/x", "bytes": 0})
    assert store.services()[0].rejected == "ModelMissing"
    do(store, epoch, lambda change: change.add_revision(SPEC))
    assert store.services()[0].rejected is None
    assert store.rejection("m", 1) is None


def test_doing_it_twice_is_doing_it_once(store: Store, epoch: int) -> None:
    def once(change: Change) -> None:
        change.add_revision(SPEC)
        change.set_serving("m", 1)
        change.add_revision(OTHER)
        change.reject("m", 2, "ModelMissing", "")

    do(store, epoch, once)
    before = store.head()
    do(store, epoch, lambda change: (change.set_serving("m", 1), change.reject("m", 2, "Other", "later")))
    assert store.head() == before
    do(store, epoch, lambda change: (change.remove_service("m"), change.remove_service("m")))
    do(store, epoch, lambda change: (change.forget_service("m"), change.forget_service("m")))
    assert kinds(store)[-2:] == ["RemovalRequested", "ServiceForgotten"]


def test_what_is_not_there_is_told(store: Store, epoch: int) -> None:
    for act in (
        lambda change: change.set_serving("m", 1),
        lambda change: change.reject("m", 1, "R", ""),
    ):
        with pytest.raises(UnknownRevision, match="service m has no revision 1"):
            do(store, epoch, act)
    with pytest.raises(UnknownKey):
        do(store, None, lambda change: change.revoke_key("nobody"))
    with pytest.raises(UnknownRevision):
        store.revision("m", 1)
    assert do(store, None, lambda change: change.remove_service("m")) is False


def test_a_service_that_comes_back_goes_on_with_the_next_number(store: Store, epoch: int) -> None:
    do(store, epoch, lambda change: (change.add_revision(SPEC), change.remove_service("m")))
    do(store, epoch, lambda change: change.forget_service("m"))
    assert store.services() == ()
    revision = do(store, epoch, lambda change: change.add_revision(SPEC))
    assert revision == store.services()[0].desired
    assert store.services()[0].desired.number == 2


def test_a_removed_service_that_is_asked_for_again_stays(store: Store, epoch: int) -> None:
    do(store, epoch, lambda change: (change.add_revision(SPEC), change.set_serving("m", 1)))
    do(store, None, lambda change: change.remove_service("m"))
    assert store.services()[0].removed
    assert dict(store.policy_view().serving) == {}
    do(store, epoch, lambda change: change.add_revision(SPEC))
    assert not store.services()[0].removed
    assert dict(store.policy_view().serving) == {"m": 1}


def test_a_key_is_kept_as_it_was_given_and_revoked_once(store: Store, clock: Clock) -> None:
    everywhere = replace(KEY, key_id="0000000002", service=None, created_at=1001.0, expires_at=2e9)
    do(store, None, lambda change: (change.add_key(KEY), change.add_key(everywhere)))
    assert store.keys() == (KEY, everywhere)
    assert store.keys("m") == (KEY, everywhere)
    assert store.keys("other") == (everywhere,)
    do(store, None, lambda change: (change.revoke_key(KEY.key_id), change.revoke_key(KEY.key_id)))
    assert store.policy_view().keys[KEY.key_id].revoked_at == clock.now
    assert kinds(store) == ["KeyAdded", "KeyAdded", "KeyRevoked"]


def test_the_limits_of_a_key_are_kept_changed_and_told_of_once(store: Store) -> None:
    limited = replace(KEY, requests_per_minute=60, tokens_per_day=10**12, priority="batch")
    do(store, None, lambda change: change.add_key(limited))
    assert store.keys() == (limited,)
    before = store.policy_view().version
    wanted = {"requests_per_minute": None, "concurrent": 3, "priority": "batch"}
    do(store, None, lambda change: change.change_key(KEY.key_id, wanted))
    do(store, None, lambda change: change.change_key(KEY.key_id, wanted))
    assert store.policy_view().keys[KEY.key_id] == replace(limited, requests_per_minute=None, concurrent=3)
    assert store.policy_view().version == before + 1, "policy servers hear of it, once"
    assert kinds(store) == ["KeyAdded", "KeyChanged"]
    assert store.events()[-1].detail["changed"] == {"requests_per_minute": None, "concurrent": 3}


@pytest.mark.parametrize(
    "wrong", [{"concurrent": 0}, {"tokens_per_day": 10**12 + 1}, {"priority": "vip"}, {"concurrent": True}]
)
def test_a_limit_that_cannot_be_is_refused(store: Store, wrong: dict[str, object]) -> None:
    do(store, None, lambda change: change.add_key(KEY))
    with pytest.raises(ValueError, match=next(iter(wrong))):
        do(store, None, lambda change: change.change_key(KEY.key_id, wrong))
    with pytest.raises(ValueError, match=next(iter(wrong))):
        do(store, None, lambda change: change.add_key(replace(KEY, key_id="0000000009", **wrong)))
    assert store.keys() == (KEY,)


def test_a_policy_server_of_the_earlier_schema_goes_on_when_the_store_was_migrated(tmp_path: Path) -> None:
    """Its columns are named, so new ones do not disturb it; only one that is started anew refuses the file."""
    path = tmp_path / "old.db"
    raw = sqlite3.connect(path, isolation_level=None)
    for statements in MIGRATIONS[:2]:
        for statement in statements:
            raw.execute(statement)
    raw.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    raw.execute("PRAGMA user_version = 2")
    row = ("0000000001", "hash", "old", "svc", None, '["inference"]', 1.0, None, None)
    raw.execute(f"INSERT INTO keys VALUES ({', '.join('?' * len(row))})", row)
    old_sql = (
        "SELECT key_id, secret_hash, name, service, revision, scopes, created_at, expires_at, revoked_at FROM keys"
    )
    store = open_store(path, clock=lambda: 1000.0)
    try:
        (kept,) = store.keys()
        assert (kept.key_id, dict(kept.limits), kept.priority) == ("0000000001", {}, "interactive")
        assert raw.execute(old_sql).fetchall() == [row]
    finally:
        raw.close()
        store.close()


def test_no_event_holds_the_hash_of_a_key(store: Store) -> None:
    do(store, None, lambda change: change.add_key(KEY))
    assert KEY.secret_hash not in repr(store.events())


@pytest.mark.parametrize(
    "row",
    [
        replace(KEY, scopes=()),
        replace(KEY, scopes=("root",)),
        replace(KEY, revision=1),
        replace(KEY, service=None, revision=1, expires_at=1.0),
    ],
)
def test_a_key_that_cannot_be_is_not_kept(store: Store, row: KeyRow) -> None:
    with pytest.raises(ValueError, match=r"scopes|pinned"):
        do(store, None, lambda change: change.add_key(row))
    assert store.keys() == ()


def test_keys_of_old_probes_do_not_pile_up(store: Store, clock: Clock) -> None:
    for number in range(50):
        probe = replace(KEY, key_id=f"{number:010d}", revision=1, expires_at=clock.now + 60)
        do(store, None, lambda change, probe=probe: change.add_key(probe))
        clock.now += 600
    assert len(store.keys()) <= 8


def answer(reason: str, verdict: Verdict = Verdict.PASS, **values: int) -> Answer:
    finding = Finding(reason=reason, verdict=verdict, subject="service/m", values=values)
    return Answer(check="memory", condition=Condition.HARDWARE, stage=Stage.LIVE, blocks=True, finding=finding)


def test_only_changed_answers_are_kept_and_the_earlier_ones_say_until_when(
    store: Store, epoch: int, clock: Clock
) -> None:
    def add(observation: int, *answers: Answer) -> None:
        do(store, epoch, lambda change: change.add_answers(Stage.LIVE, "m", 1, observation, answers))

    add(1, answer("MemoryFits", free=5))
    clock.now += 1
    before = store.head()
    add(2, answer("MemoryFits", free=5))
    add(3, answer("MemoryFits", free=4))
    assert store.head() == before
    clock.now += 1
    add(4, answer("MemoryTooSmall", Verdict.FAIL, free=0))
    (now,) = store.answers("m")
    assert (now.answer, now.observation, now.since) == (answer("MemoryTooSmall", Verdict.FAIL, free=0), 4, clock.now)
    past = store.answers("m", 1, Stage.LIVE, past=True)
    assert [(kept.observation, kept.until) for kept in past] == [
        (1, clock.now - 1),
        (3, clock.now),
        (4, None),
    ]
    event = store.events()[-1]
    assert event.kind == "FindingsChanged"
    assert [(told["reason"], told["given"]) for told in event.detail["changes"]] == [
        ("MemoryFits", False),
        ("MemoryTooSmall", True),
    ]


def test_answers_of_another_stage_or_revision_are_left_alone(store: Store, epoch: int) -> None:
    def both(change: Change) -> None:
        change.add_answers(Stage.PREFLIGHT, "m", 1, 1, [replace(answer("A"), stage=Stage.PREFLIGHT)])
        change.add_answers(Stage.LIVE, "m", 1, 1, [answer("B")])
        change.add_answers(Stage.LIVE, "m", 2, 1, [answer("C")])
        change.add_answers(Stage.LIVE, "m", 1, 2, [])

    do(store, epoch, both)
    assert [kept.answer.finding.reason for kept in store.answers("m")] == ["A", "C"]
    assert [kept.answer.finding.reason for kept in store.answers("m", 2)] == ["C"]
    assert [kept.answer.stage for kept in store.answers("m", stage=Stage.PREFLIGHT)] == [Stage.PREFLIGHT]


def test_past_answers_are_bounded(store: Store, epoch: int) -> None:
    def many(change: Change) -> None:
        for number in range(KEPT_PAST_ANSWERS + 30):
            change.add_answers(Stage.LIVE, "m", 1, number, [answer("MemoryFits", free=number)])

    do(store, epoch, many)
    assert len(store.answers("m", past=True)) == KEPT_PAST_ANSWERS + 1
    do(store, epoch, lambda change: change.add_answers(Stage.LIVE, "m", 1 + KEPT_REVISIONS, 1, [answer("A")]))
    assert [kept.revision for kept in store.answers("m", past=True)] == [1 + KEPT_REVISIONS]


def test_an_unchanged_answer_says_when_it_was_last_asked_within_a_minute(
    store: Store, epoch: int, clock: Clock
) -> None:
    first = clock.now
    for _ in range(7):
        do(store, epoch, lambda change: change.add_answers(Stage.LIVE, "m", 1, 1, [answer("A")]))
        clock.now += 10
    assert [(kept.since, kept.asked_at) for kept in store.answers("m")] == [(first, first + 60)]


def test_an_action_is_open_until_it_is_finished_or_failed(store: Store, epoch: int, clock: Clock) -> None:
    promote = Promote(service="m", revision=1)
    do(store, epoch, lambda change: change.journal_started(START))
    do(store, epoch, lambda change: change.journal_started(promote))
    assert [(o.action, o.service, o.revision, o.epoch) for o in store.open_actions()] == [
        ("EnsureReplica", "m", 1, epoch),
        ("Promote", "m", 1, epoch),
    ]
    do(store, epoch, lambda change: change.journal_finished(promote))
    do(store, epoch, lambda change: change.journal_failed(START, OSError("port taken")))
    assert store.open_actions() == ()
    failure = store.events()[-1]
    assert (failure.kind, failure.service, failure.revision) == ("ActionFailed", "m", 1)
    assert failure.detail == {"action": "EnsureReplica", "replica": "m/1/0", "error": "OSError: port taken"}


def test_an_action_begun_again_after_a_crash_is_open_once(store: Store, epoch: int) -> None:
    do(store, epoch, lambda change: change.journal_started(START))
    epoch = store.acquire_lease("the next")
    do(store, epoch, lambda change: change.journal_started(START))
    (action,) = store.open_actions()
    assert action.epoch == epoch


def test_what_an_ended_control_left_open_is_told_once_and_open_no_more(store: Store, epoch: int) -> None:
    do(store, epoch, lambda change: change.journal_started(START))
    epoch = store.acquire_lease("the next")
    do(store, epoch, lambda change: change.journal_started(Promote(service="m", revision=1)))
    left = do(store, epoch, lambda change: change.journal_abandoned())
    assert isinstance(left, tuple)
    assert [action.action for action in left] == ["EnsureReplica"]
    assert [action.action for action in store.open_actions()] == ["Promote"]
    assert store.events()[-1].kind == "ActionAbandoned"
    assert store.events()[-1].detail["replica"] == "m/1/0"
    before = store.head()
    assert do(store, epoch, lambda change: change.journal_abandoned()) == ()
    assert store.head() == before


def test_every_action_can_be_told(store: Store, epoch: int) -> None:
    finding = Finding(reason="R", verdict=Verdict.FAIL, subject="s", values={"rate": float("inf"), "line": "\udce9"})
    do(
        store,
        epoch,
        lambda change: change.journal_started(Reject(service="m", revision=1, finding=finding)),
    )
    told = store.events()[-1].detail["finding"]
    assert told == {"reason": "R", "verdict": "fail", "subject": "s", "values": {"rate": "inf", "line": "�"}}


def test_an_event_says_who_for_whom_and_in_which_request(store: Store, epoch: int, clock: Clock) -> None:
    do(store, epoch, lambda change: change.event("ReplicaReady", "m", 1, replica="m/1/0", seconds=1.5))
    event = store.events()[-1]
    assert (event.actor, event.principal, event.request_id) == ("control", "alice", "r-1")
    assert (event.kind, event.service, event.revision) == ("ReplicaReady", "m", 1)
    assert (event.detail, event.at) == ({"replica": "m/1/0", "seconds": 1.5}, clock.now)


def test_events_are_read_by_page_kind_and_service_and_from_the_end(store: Store, epoch: int) -> None:
    for number in range(5):
        do(store, epoch, lambda change, n=number: change.event("ReplicaReady", f"s{n % 2}", 1))
    assert [event.sequence for event in store.events(after=2, limit=2)] == [3, 4]
    assert [event.sequence for event in store.latest_events(2)] == [5, 6]
    assert [event.sequence for event in store.events(kind="LeaseAcquired")] == [1]
    assert [event.sequence for event in store.latest_events(2, service="s1")] == [3, 5]


def test_an_event_of_no_known_kind_or_actor_is_our_mistake(store: Store, epoch: int) -> None:
    with pytest.raises(ValueError, match="Something is no kind"):
        do(store, epoch, lambda change: change.event("Something"))
    with pytest.raises(ValueError, match="nobody is no actor"):
        store.change(epoch=epoch, actor="nobody", principal="alice").__enter__()


def test_every_kind_is_in_the_past_tense_and_explained() -> None:
    for kind, line in KINDS.items():
        assert kind.endswith(("ed", "Made", "Again", "Hung", "Begun", "Ready", "Forgotten", "Proven")), kind
        assert line, kind


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET principal = 'mallory' WHERE sequence = 1",
        "DELETE FROM events WHERE sequence = 1",
        "INSERT OR REPLACE INTO events SELECT * FROM events WHERE sequence = 1",
        "INSERT INTO events SELECT sequence + 2, at_ms, actor, principal, request_id, kind, service, revision, detail,"
        " hash, 'x' FROM events WHERE sequence = 1",
        "INSERT INTO events SELECT sequence + 1, at_ms, actor, principal, request_id, kind, service, revision, detail,"
        " previous_hash, 'x' FROM events WHERE sequence = 1",
    ],
)
def test_the_database_itself_refuses_to_change_events(store: Store, epoch: int, statement: str) -> None:
    with pytest.raises(sa.exc.IntegrityError, match="append-only"), store._backend.writing() as connection:
        connection.exec_driver_sql(statement)
    assert len(store.events()) == 1


def test_a_key_that_acts_for_another_is_kept_only_within_the_others_bounds(tmp_path: Path) -> None:
    store = open_store(tmp_path / "gonogo.db", clock=lambda: 100.0)
    owner = replace(KEY, key_id="owner00000", service="svc")
    good = replace(KEY, key_id="child00000", service="svc", expires_at=200.0, acts_for="owner00000")
    wrong = (
        replace(good, acts_for="nobody0000"),
        replace(good, service=None),
        replace(good, service="other"),
        replace(good, expires_at=None),
        replace(good, concurrent=1),
        replace(good, key_id="third00000", acts_for="child00000"),
    )
    with store.change(epoch=None, actor="tasks", principal="owner00000") as change:
        change.add_key(owner)
        change.add_key(good)
        for row in wrong:
            with pytest.raises(ValueError, match="acts for"):
                change.add_key(row)
    assert store.policy_view().keys["child00000"] == good
    assert store.latest_events(1)[0].detail["acts_for"] == "owner00000"

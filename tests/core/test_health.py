"""A busy replica is not a sick one; a silent and still one is."""

from __future__ import annotations

from dataclasses import replace

from gonogo.facts.replica import Health
from gonogo.plan import health

BORN = health.History(born_at=100.0, load_limit_s=120.0)


def looks(history: health.History, *steps: dict[str, object], every_s: float = 1.0) -> health.History:
    """Add looks, one each `every_s`, each like the one before but for what is said."""
    seen: dict[str, object] = {"answered": True, "stopped": False, "cpu_s": 1.0, "tokens": 0, "busy": False}
    at = max(history.last_at, 100.0)
    for step in steps:
        at += every_s
        seen = {**seen, **step}
        history = health.add(history, health.Look(at=at, **seen))  # type: ignore[arg-type]
    return history


def well() -> health.History:
    return health.generated(looks(BORN, {}), 101.0)


def test_before_the_first_look_nothing_is_known() -> None:
    assert health.judge(BORN) is None


def test_a_replica_that_has_not_generated_is_starting() -> None:
    assert health.judge(looks(BORN, {}, {})) is Health.STARTING


def test_a_replica_that_generated_is_ready() -> None:
    assert health.judge(well()) is Health.READY


def test_loading_for_longer_than_the_limit_counts_as_hung() -> None:
    steps = [{"cpu_s": float(second)} for second in range(130)]
    assert health.judge(looks(BORN, *steps)) is Health.HUNG


def test_a_stopped_replica_is_hung_after_two_unanswered_looks() -> None:
    one = looks(well(), {"answered": False, "stopped": True})
    assert health.judge(one) is Health.READY
    assert health.judge(looks(one, {"answered": False, "stopped": True})) is Health.HUNG


def test_silence_without_cpu_is_hung_after_three_looks() -> None:
    silent = {"answered": False}
    assert health.judge(looks(well(), silent, silent)) is Health.READY
    assert health.judge(looks(well(), silent, silent, silent)) is Health.HUNG


def test_silence_while_it_computes_is_overload_not_a_hang() -> None:
    steps = [{"answered": False, "busy": True, "cpu_s": 2.0 + second, "tokens": second} for second in range(60)]
    assert health.judge(looks(well(), *steps)) is Health.READY


def test_one_answer_forgives_the_silence_before_it() -> None:
    silent = {"answered": False}
    history = looks(well(), silent, silent, {"answered": True}, silent, silent)
    assert health.judge(history) is Health.READY


def test_busy_without_one_token_more_for_45_seconds_is_hung() -> None:
    spinning = [{"busy": True, "cpu_s": 2.0 + second} for second in range(44)]
    history = looks(well(), *spinning)
    assert health.judge(history) is Health.READY
    assert health.judge(looks(history, {"busy": True, "cpu_s": 60.0}, {"cpu_s": 61.0}, {"cpu_s": 62.0})) is Health.HUNG


def test_idle_for_an_hour_is_ready() -> None:
    assert health.judge(looks(well(), *[{}] * 3600)) is Health.READY


def test_metrics_that_cannot_be_read_are_not_progress() -> None:
    blind = [{"busy": None, "tokens": None, "cpu_s": 2.0 + second} for second in range(50)]
    assert health.judge(looks(well(), *blind)) is Health.HUNG


def test_a_picture_is_read_for_minutes_without_a_token_more_and_not_for_ever() -> None:
    busy = [{"busy": True, "tokens": 5, "cpu_s": 2.0 + second} for second in range(700)]
    seeing = replace(well(), stuck_s=health.SEEING_STUCK_S)
    assert health.judge(looks(well(), *busy[:60])) is Health.HUNG
    assert health.judge(looks(seeing, *busy[:590])) is Health.READY
    assert health.judge(looks(seeing, *busy)) is Health.HUNG


def test_one_that_says_twice_that_it_is_broken_is_hung_although_it_answers_and_computes() -> None:
    said = {"answered": False, "broken": True, "cpu_s": 5.0}
    assert health.judge(looks(well(), said)) is Health.READY, "once may be a stumble"
    assert health.judge(looks(well(), said, {**said, "cpu_s": 6.0})) is Health.HUNG


def test_while_it_loads_not_well_is_no_news() -> None:
    steps = [{"answered": False, "broken": True, "cpu_s": float(second)} for second in range(1, 20)]
    assert health.judge(looks(BORN, *steps)) is Health.STARTING


def test_one_good_answer_forgives_what_it_said_of_itself_before() -> None:
    broken, fine = {"answered": False, "broken": True}, {"answered": True, "broken": False}
    assert health.judge(looks(well(), broken, fine, broken)) is Health.READY


def test_one_that_shares_its_port_is_hung_from_the_first_look_also_while_it_loads() -> None:
    """Its answers may be another's: nothing that is seen on this port says anything of it."""
    assert health.judge(looks(BORN, {"shared": True})) is Health.HUNG
    assert health.judge(looks(well(), {"shared": True}, {"shared": False})) is Health.HUNG

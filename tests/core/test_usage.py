"""What a request used and how it ended, and that the order in which lines are read means nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.facts.metered import Waiting, join
from gonogo.facts.request_record import Attempt, RequestRecord, StreamRecord
from gonogo.facts.usage import BOUNDS, Histogram, Outcome, Usage, outcome_of, quantile, usage_of

ANSWERED = RequestRecord(
    at=1_700_000_000.25,
    request_id="r-1",
    method="POST",
    path="/v1/chat/completions",
    status=200,
    flags="",
    details="via_upstream",
    bytes_received=41,
    bytes_sent=1102,
    duration_ms=900,
    sent_ms=40,
    first_byte_ms=890,
    attempts=1,
    upstream="svc/1",
    replica="svc/1/0",
    revision="svc/1",
    key_id="k1",
    streamed=False,
    prompt_tokens=24,
    completion_tokens=11,
    cached_tokens=8,
    prompt_estimate=20,
    code=None,
)
RELAYED = replace(
    ANSWERED,
    upstream="relay",
    replica=None,
    streamed=True,
    first_byte_ms=60,
    prompt_tokens=None,
    completion_tokens=None,
    cached_tokens=None,
)
STREAM = StreamRecord(
    request_id="r-1",
    key_id="k1",
    revision="svc/1",
    attempts=(Attempt(replica="svc/1/0", tokens=4, end="died"), Attempt(replica="svc/1/1", tokens=7, end="done")),
    prompt_tokens=24,
    completion_tokens=11,
    cached_tokens=None,
    ttft_ms=60.0,
    itl_p50_ms=10.0,
    itl_p95_ms=20.0,
    itl_max_ms=600.0,
    stall_ms=600.0,
    continued=1,
    status="done",
    http_status=200,
)


def test_an_answer_in_one_piece_is_counted_with_its_tokens_and_its_time() -> None:
    used = usage_of(ANSWERED, None)
    assert (used.requests, used.statuses, used.outcomes) == (1, {"200": 1}, {"answered": 1})
    assert (used.prompt_tokens, used.completion_tokens, used.cached_tokens, used.unmetered) == (24, 11, 8, 0)
    assert set(used.histograms) == {"duration_s", "prompt", "completion"}, "its first token was never seen alone"
    assert used.histograms["duration_s"].total == 0.9


def test_the_first_token_of_a_stream_comes_after_what_it_waited_for_policy() -> None:
    used = usage_of(RELAYED, STREAM)
    assert used.histograms["ttft_s"].total == pytest.approx(0.1)
    assert used.histograms["per_token_s"].total == pytest.approx((0.9 - 0.1) / 10)
    assert (used.streamed, used.continued, used.completion_tokens) == (1, 1, 11)


def test_a_stream_that_no_relay_passed_on_has_the_first_byte_for_its_first_token() -> None:
    used = usage_of(replace(ANSWERED, streamed=True, first_byte_ms=60), None)
    assert used.histograms["ttft_s"].total == pytest.approx(0.06)


def test_an_answer_whose_tokens_nobody_told_is_counted_as_such() -> None:
    untold = replace(ANSWERED, prompt_tokens=None, completion_tokens=None)
    assert usage_of(untold, None).unmetered == 1
    assert usage_of(replace(untold, method="GET", path="/v1/models"), None).unmetered == 0
    assert usage_of(replace(untold, status=429), None).unmetered == 0


def test_where_nobody_told_the_prompts_tokens_policys_estimate_stands_and_is_counted_as_one() -> None:
    untold = replace(ANSWERED, prompt_tokens=None, completion_tokens=None)
    used = usage_of(untold, None)
    assert (used.prompt_tokens, used.estimated, used.unmetered) == (20, 1, 1)
    left = usage_of(replace(untold, flags="DC", details="downstream_remote_disconnect"), None)
    assert (left.prompt_tokens, left.estimated, left.unmetered) == (20, 1, 0)
    assert usage_of(replace(untold, status=503), None).prompt_tokens == 0, "no replica worked on it"
    assert usage_of(ANSWERED, None).estimated == 0


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, Outcome.ANSWERED),
        ({"status": 500, "details": ""}, Outcome.FAILED),
        ({"status": 503, "flags": "URX,UC", "details": "upstream_reset_before_response_started"}, Outcome.FAILED),
        ({"status": 503, "revision": None, "details": "ext_authz_error"}, Outcome.FAILED),
        ({"flags": "UC", "details": "upstream_reset_after_response_started{connection_termination}"}, Outcome.FAILED),
        ({"flags": "SI", "details": "stream_idle_timeout"}, Outcome.FAILED),
        ({"status": 0, "flags": "", "details": ""}, Outcome.FAILED),
        ({"status": 400}, Outcome.REFUSED),
        ({"status": 401, "revision": None, "details": "policy_missing_key"}, Outcome.REFUSED),
        ({"status": 429, "revision": None, "details": "policy_rate_limited"}, Outcome.REFUSED),
        ({"status": 0, "flags": "DC", "details": "downstream_remote_disconnect"}, Outcome.GONE),
        ({"flags": "DC", "details": "downstream_remote_disconnect"}, Outcome.GONE),
        ({"flags": "DR", "details": "http2.remote_reset"}, Outcome.GONE),
        ({"status": 200, "revision": None, "upstream": None, "details": "direct_response"}, Outcome.OTHER),
        ({"status": 404, "revision": None, "upstream": None, "details": "direct_response"}, Outcome.REFUSED),
    ],
)
def test_how_a_request_ended(changes: dict[str, object], outcome: Outcome) -> None:
    assert outcome_of(replace(ANSWERED, **changes), None) is outcome  # type: ignore[arg-type]


def test_a_stream_that_broke_after_its_first_byte_is_a_failure_though_its_status_is_200() -> None:
    lost = replace(STREAM, status="lost")
    assert outcome_of(RELAYED, lost) is Outcome.FAILED
    assert outcome_of(None, lost) is Outcome.FAILED
    assert outcome_of(RELAYED, None) is Outcome.FAILED, "its relay was killed before it could say how it ended"


def test_a_stream_that_its_client_left_or_that_was_refused_is_no_failure() -> None:
    assert outcome_of(RELAYED, replace(STREAM, status="cancelled")) is Outcome.GONE
    for status, outcome in ((400, Outcome.REFUSED), (503, Outcome.FAILED)):
        refused = replace(STREAM, status="refused", http_status=status)
        assert outcome_of(replace(RELAYED, status=status), refused) is outcome
        assert outcome_of(None, refused) is outcome


def histogram_of(name: str, value: float) -> Histogram:
    bounds = BOUNDS[name]
    index = next((at for at, bound in enumerate(bounds) if value <= bound), len(bounds))
    return Histogram(counts=tuple(int(at == index) for at in range(len(bounds) + 1)), total=value)


_used = st.builds(
    usage_of,
    st.builds(
        replace,
        st.just(ANSWERED),
        status=st.sampled_from([200, 400, 429, 500, 503]),
        duration_ms=st.integers(0, 200_000),
        completion_tokens=st.one_of(st.none(), st.integers(0, 10_000)),
    ),
    st.none(),
)


@given(st.lists(_used, max_size=6), st.randoms(use_true_random=False))
def test_sums_do_not_depend_on_the_order(parts: list[Usage], chance: object) -> None:
    other = list(parts)
    chance.shuffle(other)  # type: ignore[attr-defined]
    one, two = sum(parts, Usage()), sum(other, Usage())
    assert replace(one, histograms={}) == replace(two, histograms={})
    assert {name: seen.counts for name, seen in one.histograms.items()} == {
        name: seen.counts for name, seen in two.histograms.items()
    }
    assert one.requests == sum(one.statuses.values()) == sum(one.outcomes.values()) == len(parts)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=60), st.integers(1, 7))
def test_however_the_lines_come_each_request_is_whole_once(order: list[tuple[bool, int]], size: int) -> None:
    """`order`: which half of which request is read next, in pieces of `size`; what comes twice comes once here."""
    seen = list(dict.fromkeys(order))
    waiting, whole = Waiting(), []
    for begin in range(0, len(seen), size):
        piece = seen[begin : begin + size]
        requests = [replace(RELAYED, request_id=str(number)) for half, number in piece if half]
        streams = [replace(STREAM, request_id=str(number)) for half, number in piece if not half]
        joined = join(requests, streams, waiting)
        waiting = joined.waiting
        whole += joined.whole
    halves = {half: {str(number) for one, number in seen if one is half} for half in (True, False)}
    assert sorted(request.request_id for request, _ in whole if request) == sorted(halves[True] & halves[False])
    assert set(waiting.requests) == halves[True] - halves[False]
    assert set(waiting.streams) == halves[False] - halves[True]


def test_the_outer_line_of_a_grpc_call_counts_only_where_it_got_no_further() -> None:
    outer = replace(ANSWERED, upstream="rpc", revision=None)
    assert join([outer], [], Waiting()).whole == ()
    for flags in ("URX,UF", "UC"):  # as Envoy says it, with 200: nobody took it; the server died
        ((request, _),) = join([replace(outer, flags=flags, replica=None)], [], Waiting()).whole
        assert request is not None
        assert outcome_of(request, None) is Outcome.FAILED


@given(st.lists(st.floats(0.0001, 9.9), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_value_that_it_is_about(values: list[float], share: float) -> None:
    bounds = BOUNDS["ttft_s"]
    seen = sum((Usage(histograms={"ttft_s": histogram_of("ttft_s", one)}) for one in values), Usage())
    found = quantile("ttft_s", seen.histograms["ttft_s"], share)
    import math

    exact = sorted(values)[max(0, math.ceil(share * len(values) - 1e-9) - 1)]
    index = next(at for at, bound in enumerate(bounds) if exact <= bound)
    low = bounds[index - 1] if index else 0.0
    assert found is not None
    assert low <= found <= bounds[index] + 1e-12


def test_no_values_have_no_quantile_and_what_is_above_all_bounds_is_told_as_the_last() -> None:
    assert quantile("ttft_s", Histogram(counts=(0,) * 17, total=0.0), 0.5) is None
    assert quantile("ttft_s", histogram_of("ttft_s", 99.0), 0.5) == 10.0
    on_a_bound = usage_of(replace(ANSWERED, streamed=True, first_byte_ms=10), None).histograms["ttft_s"]
    assert on_a_bound.counts.index(1) == 2, "a value on a bound is below it"

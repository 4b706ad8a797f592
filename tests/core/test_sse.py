"""Server-sent events come out whole, however their bytes were divided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo.gateway.relay import sse
from gonogo.gateway.relay.sse import Events, NotEvents, event_of, json_of

TEXT = "".join(f"data: {one}\n\n" for one in ('{"a":"ü😀"}', '{"b":[1,2]}', "[DONE]")).encode()
values = st.dictionaries(st.text(max_size=5), st.one_of(st.text(max_size=20), st.integers(), st.none()), max_size=3)


@given(st.lists(st.integers(1, len(TEXT) - 1), max_size=8))
def test_where_the_bytes_were_divided_does_not_matter(places: list[int]) -> None:
    events, got, begin = Events(), [], 0
    for end in (*sorted(set(places)), len(TEXT)):
        got += events.feed(TEXT[begin:end])
        begin = end
    assert [event.data for event in got] == [b'{"a":"\xc3\xbc\xf0\x9f\x98\x80"}', b'{"b":[1,2]}', b"[DONE]"]
    assert b"".join(event.raw for event in got) == TEXT
    assert got[-1].done and events.rest == b""


@given(st.lists(values, max_size=4))
def test_what_was_written_is_read(given_values: list[dict[str, object]]) -> None:
    got = Events().feed(b"".join(event_of(value) for value in given_values))
    assert [json_of(event) for event in got] == given_values


def test_comments_other_fields_and_other_line_ends_are_taken() -> None:
    got = Events().feed(b": still here\n\nevent: error\ndata: {}\n\ndata: a\r\ndata: b\r\n\r\nerror: {}\n\n")
    assert [(event.data, event.named) for event in got] == [
        (None, None),
        (b"{}", "error"),
        (b"a\nb", None),
        (None, "error"),
    ]


@pytest.mark.parametrize(
    "data", [b"data: {\n\n", b"data: [1]\n\n", b"data: \xff\n\n", b"data: " + b"[" * 10**5 + b"\n\n"]
)
def test_what_is_no_object_is_refused_by_name(data: bytes) -> None:
    (event,) = Events().feed(data)
    with pytest.raises(NotEvents):
        json_of(event)


def test_an_event_without_an_end_is_not_held_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MOST_EVENT_BYTES", 100)
    events = Events()
    events.feed(b"data: " + b"x" * 90)
    with pytest.raises(NotEvents, match="endless_event"):
        events.feed(b"x" * 90)

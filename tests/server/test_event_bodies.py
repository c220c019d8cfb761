"""Event bodies: every way to be wrong has its sentence, and nothing before it is lost."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.errors import EventInvalidError
from holdfast.base.ids import ulid_ms
from holdfast.base.limits import MAX_EVENT_BYTES, MAX_EVENT_TS, MAX_JSON_DEPTH, MIN_EVENT_TS
from holdfast.sdk.events import Event
from holdfast.server.ingest import check_depth, merge_sessions, parse_events, parse_payload
from holdfast.server.seed import Seed


class OrderPaid(Event, name="shop/order.paid"):
    order_id: str
    amount: int


def schema_of(name: str) -> type[Event] | None:
    return OrderPaid if name == "shop/order.paid" else None


def parse(body: bytes | object, seed: Seed | None = None):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_events(raw, schema_of, seed)


def nested(depth: int) -> bytes:
    """An event of this depth: itself, its data, and objects within."""
    return b'{"name":"a","data":' + b'{"a":' * (depth - 2) + b"{}" + b"}" * (depth - 2) + b"}"


def test_data_is_kept_byte_for_byte():
    data = b'{ "big": 123456789012345678901234567890, "f": 1.10, "u": "\\u00e9" }'
    parsed = parse(b'{"name":"a","data":' + data + b"}")
    assert parsed.error is None
    assert parsed.events[0].data == data


def test_the_whole_envelope_comes_through():
    parsed = parse(
        {
            "name": "a",
            "id": "i1",
            "ts": 1_700_000_000_000,
            "v": "2",
            "user": {"id": 1},
            "data": {"x": 1},
            "unknown": [1],
        }
    )
    event = parsed.events[0]
    assert (event.name, event.id, event.ts, event.v, event.user) == ("a", "i1", 1_700_000_000_000, "2", b'{"id": 1}')


@pytest.mark.protocol("events.checks")
@pytest.mark.parametrize(
    "body",
    [
        {"name": "a"},
        {"name": "a", "data": None, "id": None, "ts": None, "v": None, "user": None, "meta": None},
        {"name": "a", "data": {}, "ts": 0, "id": "", "user": {}},
    ],
)
def test_what_is_left_out_is_empty(body):
    event = parse(body).events[0]
    assert (event.data, event.id, event.ts, event.user, event.meta) == (b"{}", None, None, None, None)


@pytest.mark.protocol("events.checks")
@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "the request has no body; send an event as JSON"),
        (b"  \n", "the request has no body"),
        (b"1", "Request body must contain an event object or an array of event objects"),
        (b'"text"', "Request body must contain an event object or an array of event objects"),
        (b"null", "Request body must contain an event object or an array of event objects"),
        (b"nope", "the body is not JSON: invalid character"),
        (b"<html>", "the body is not JSON: invalid character"),
        (b'{"name":"a"', "the body is not JSON: input data was truncated"),
        (b'{"name":"a"} x', "the body is not JSON: trailing characters"),
        (b"[1]", "Request body must contain an event object or an array of event objects"),
        (b"[[]]", "Request body must contain an event object or an array of event objects"),
        (b"{}", "event name is empty"),
        (b'{"name":""}', "event name is empty"),
        (b'{"name":null}', "event name is empty"),
        (b'{"name":["a"]}', "the event's name must be a string, not an array"),
        (b'{"name":1}', "the event's name must be a string, not a number"),
        (b'{"name":"inngest/x"}', "event name is reserved for internal use: inngest/x"),
        (b'{"name":"InnGest/x"}', "event name is reserved for internal use: InnGest/x"),
        (b'{"name":"' + b"a" * 256 + b'"}', "event name is longer than 255 characters"),
        (b'{"name":"a","data":[1]}', "event 'a': data must be an object, not an array"),
        (b'{"name":"a","data":"x"}', "event 'a': data must be an object, not a string"),
        (b'{"name":"a","data":true}', "event 'a': data must be an object, not a boolean"),
        (b'{"name":"a","user":1}', "event 'a': user must be an object, not a number"),
        (b'{"name":"a","id":5}', "the event's id must be a string, not a number"),
        (b'{"name":"a","id":"' + b"i" * 513 + b'"}', "event 'a': its id is longer than 512 characters"),
        (b'{"name":"a","ts":"2026-01-01"}', "ts must be a whole number of milliseconds since 1970"),
        (b'{"name":"a","ts":1.5}', "ts must be a whole number of milliseconds since 1970"),
        (b'{"name":"a","ts":%d}' % (MIN_EVENT_TS - 1), "timestamp is before Jan 1, 1980"),
        (b'{"name":"a","ts":-5}', "timestamp is before Jan 1, 1980"),
        (b'{"name":"a","ts":%d}' % MAX_EVENT_TS, "timestamp is after Jan 1, 2100"),
        (b'{"name":"a","ts":99999999999999999999999999}', "timestamp is after Jan 1, 2100"),
        (b'{"name":"a","data":{"x":NaN}}', "NaN and Infinity have no JSON form"),
        (b'{"name":"a","data":{"x":-Infinity}}', "NaN and Infinity have no JSON form"),
        (b'{"name":"a","data":{"x":1e999}}', "event 'a': data is not JSON: number out of range"),
        (b'{"name":"a","data":{"x":"\xff"}}', "event 'a': data is not JSON: it is not UTF-8 text"),
        (b'{"name":"\xff"}', "the body is not JSON: it is not UTF-8 text"),
        (b'{"name":"a","data":{"x":"\\ud800"}}', "a string in it has half of a surrogate pair"),
        (b'{"name":"a","data":{"x":01}}', "the body is not JSON: invalid number"),
        (b'{"name":"a","meta":[]}', "the event's meta must be an object, not an array"),
        (
            b'{"name":"shop/order.paid","data":{"order_id":"o1"}}',
            "event 'shop/order.paid' does not fit its schema: amount: field required",
        ),
        (
            b'{"name":"shop/order.paid","data":{"order_id":"o1","amount":"many"}}',
            "event 'shop/order.paid' does not fit its schema: amount: input should be a valid integer",
        ),
        (b'{"name":"shop/order.paid"}', "order_id: field required"),
        (nested(MAX_JSON_DEPTH + 1), "the event is nested deeper than 128 levels"),
        (b"[" * 100_000, "the body is not JSON: it is nested deeper than 128 levels"),
    ],
)
def test_what_is_wrong_is_said(body, error):
    parsed = parse(body)
    assert parsed.events == []
    assert error in parsed.error


@pytest.mark.protocol("events.checks")
@pytest.mark.parametrize("ts", [MIN_EVENT_TS, MAX_EVENT_TS - 1])
def test_timestamps_at_the_bounds(ts):
    assert parse({"name": "a", "ts": ts}).events[0].ts == ts


def test_depth_at_the_bound():
    assert parse(nested(MAX_JSON_DEPTH)).error is None


def test_brackets_in_strings_are_not_depth():
    body = b'{"name":"a","data":{"x":"' + b"{[" * 1000 + rb"\"[[[\\" + b'","y":"' + b"}" * 500 + b'"}}'
    assert parse(body).error is None
    assert "deeper" in parse(body[:-2] + b',"z":' + b"[" * 127 + b"]" * 127 + b"}}").error


def test_size_at_the_bound():
    body = b'{"name":"a","data":{"x":"' + b"y" * (MAX_EVENT_BYTES - 28) + b'"}}'
    assert len(body) == MAX_EVENT_BYTES
    assert parse(body).error is None
    assert parse(b"[" + body + b"]").error is None
    larger = body[:-3] + b'y"}}'
    assert parse(larger).error.startswith("Event is over the max size of 3145728 bytes: it has 3145729")


def test_an_empty_array_has_no_events_and_no_error():
    assert parse(b"[]") == parse(b" [ ] ")
    assert parse(b"[]").events == []
    assert parse(b"[]").error is None


def test_five_thousand_events_and_one_more():
    assert len(parse([{"name": "a"}] * 5000).events) == 5000
    parsed = parse([{"name": "a"}] * 5001)
    assert (len(parsed.events), parsed.error) == (5000, "Cannot have more than 5000 events in a batch")


@pytest.mark.parametrize(
    "bad",
    [
        b'{"name":""}',
        b"1",
        b"null",
        b'{"name":"a","data":{"x":NaN}}',
        b"garbage",
        b'{"name":"a\xff"}',
        b'{"name":"a","data":',
        b"",
        b"[" * 5000,
        b'{"name":"shop/order.paid"}',
        b'{"name":"x","data":{"a":1,}}',
    ],
)
def test_events_before_a_bad_one_are_kept(bad):
    parsed = parse(b'[{"name":"one","data":{"n":1}} , {"name":"two"},' + bad + b"]")
    assert [event.name for event in parsed.events] == ["one", "two"]
    assert parsed.events[0].data == b'{"n":1}'
    assert parsed.error


def test_the_last_of_duplicate_keys_counts():
    parsed = parse(b'{"name":"a","name":"b","data":{"x":1},"data":{"x":2,"x":3}}')
    assert (parsed.events[0].name, json.loads(parsed.events[0].data)) == ("b", {"x": 3})


def test_a_byte_order_mark_is_passed_over():
    assert parse(b'\xef\xbb\xbf{"name":"a"}').events[0].name == "a"


def test_what_belongs_to_the_protocol_is_taken_out_of_data():
    parsed = parse(b'{"name":"a","data":{"_inngest":{"x":1},"n":123456789012345678901234567890,"f":0.1}}')
    assert parsed.events[0].data == b'{"n":123456789012345678901234567890,"f":0.1}'
    assert parse(b'{"name":"a","data":{"\\u005finngest":1}}').events[0].data == b"{}"


def test_unknown_fields_of_a_newer_sender_are_allowed():
    assert parse({"name": "shop/order.paid", "data": {"order_id": "o1", "amount": 1, "new": True}}).error is None


class TestSessions:
    def test_manual_labels_win_and_null_takes_away(self):
        meta = {"propagated_sessions": {"a": "1", "b": "2", "c": "3"}, "sessions": {"b": "B", "c": None}, "other": 1}
        event = parse({"name": "a", "meta": meta}).events[0]
        assert json.loads(event.meta) == {"other": 1, "sessions": {"a": "1", "b": "B"}}

    def test_nothing_left_is_no_meta(self):
        assert parse({"name": "a", "meta": {"sessions": {"a": None}}}).events[0].meta is None

    @pytest.mark.parametrize(
        ("sessions", "error"),
        [
            ({str(n): "x" for n in range(6)}, "has 6 sessions; at most 5"),
            ({"k" * 129: "x"}, "longer than 128 bytes"),
            ({"é" * 65: "x"}, "longer than 128 bytes"),
            ({"k": "x" * 513}, "longer than 512 bytes"),
            ({"k": 1}, "must be a string, not a number"),
            ([], "must be an object, not an array"),
        ],
    )
    def test_bounds(self, sessions, error):
        with pytest.raises(EventInvalidError, match=error):
            merge_sessions(None, sessions, "a")

    def test_at_the_bounds(self):
        assert len(merge_sessions({str(n): "x" for n in range(4)}, {"k" * 128: "x" * 512}, "a")) == 5

    def test_meta_has_a_bound(self):
        assert "at most 32768 are kept" in parse({"name": "a", "meta": {"x": "y" * 33_000}}).error


class TestSeed:
    header = "1700000000000," + b64encode(bytes(range(10))).decode()

    def test_ids_count_up_from_the_seed(self):
        first, second = parse([{"name": "a"}, {"name": "b"}], Seed.of_header(self.header)).events
        assert ulid_ms(first.internal_id) == 1_700_000_000_000
        assert first.internal_id[6:12] == bytes(range(6))
        assert int.from_bytes(first.internal_id[12:], "big") == 0x06070809 + 1
        assert int.from_bytes(second.internal_id[12:], "big") == 0x06070809 + 2

    def test_the_counter_wraps(self):
        assert Seed(1, b"\xff" * 10).id(1)[12:] == b"\0\0\0\0"

    @pytest.mark.parametrize(
        "header",
        [
            "",
            "x",
            "1",
            "1,",
            "1,AAAA",
            "0," + "A" * 16,
            "-5,AAAAAAAAAAAAAA==",
            "99999999999999999999,AAAAAAAAAAAAAA==",
            "1,!!!",
        ],
    )
    def test_what_is_no_seed_is_passed_over(self, header):
        assert Seed.of_header(header) is None


class TestPayload:
    def test_no_body_is_an_empty_one(self):
        assert parse_payload(b"", "inngest/function.invoked", schema_of).data == b"{}"

    def test_the_name_may_be_left_out_but_not_be_reserved(self):
        assert (
            parse_payload(b'{"data":{"x":1}}', "inngest/function.invoked", schema_of).name == "inngest/function.invoked"
        )
        with pytest.raises(EventInvalidError, match="reserved"):
            parse_payload(b'{"name":"inngest/x"}', "inngest/function.invoked", schema_of)

    def test_an_array_is_refused(self):
        with pytest.raises(EventInvalidError, match="must contain an event object"):
            parse_payload(b"[]", "a", schema_of)


# -- properties ------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.binary(max_size=200))
def test_no_bytes_break_it(body):
    parsed = parse(body)
    assert parsed.error is None or isinstance(parsed.error, str)
    assert parsed.events or parsed.error is not None or body.strip(b" \t\r\n\xef\xbb\xbf").startswith(b"[")


@given(st.lists(st.dictionaries(st.text(min_size=1), json_values, max_size=4), max_size=5))
@settings(max_examples=200)
def test_good_events_come_through_as_they_are(datas):
    datas = [{k: v for k, v in data.items() if k != "_inngest"} for data in datas]
    parsed = parse([{"name": f"e{n}", "data": data} for n, data in enumerate(datas)])
    if parsed.error is None:
        assert [json.loads(event.data) for event in parsed.events] == datas
    else:
        # the only values of this test that have no place in a store
        assert "surrogate" in parsed.error or "out of range" in parsed.error


@given(st.lists(json_values, max_size=5), st.integers(0, 5), st.integers(0, 200), st.binary(max_size=3))
def test_a_damaged_batch_keeps_its_beginning(values, good, position, damage):
    """What comes out of a damaged batch is a beginning of what comes out of the whole one, up to the damage."""
    events = [{"name": f"e{n}", "data": {"v": value}} for n, value in enumerate(values)]
    whole = json.dumps(events).encode()
    cut = whole[: min(position, len(whole))] + damage
    before, after = parse(whole), parse(cut)
    untouched = sum(1 for n in range(len(before.events)) if len(json.dumps(events[: n + 1]).encode()) - 1 <= position)
    assert [e.data for e in after.events[:untouched]] == [e.data for e in before.events[:untouched]]


@given(json_values)
def test_depth_is_exact(value):
    def depth(value) -> int:
        if isinstance(value, dict):
            return 1 + max(map(depth, value.values()), default=0)
        return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0

    # enough brackets beside it that the quick test by counting does not settle it
    inner = json.dumps([value, *([[]] * 200)]).encode()
    padding = MAX_JSON_DEPTH - depth([value, []])
    check_depth(b"[" * padding + inner + b"]" * padding)
    with pytest.raises(EventInvalidError):
        check_depth(b"[" * (padding + 1) + inner + b"]" * (padding + 1))

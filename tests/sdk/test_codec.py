"""Step results: what is recorded reads back as what was returned, or the step fails with a sentence that says why."""

from __future__ import annotations

import dataclasses
import json
from collections import namedtuple
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, NamedTuple, Optional, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from holdfast import NotSerializableError
from holdfast.base.codec import ResultCodec, encode_json
from holdfast.base.limits import MAX_JSON_DEPTH


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Kind(StrEnum):
    A = "a"


class Address(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    street_name: str
    since: date | None = None


class Customer(BaseModel):
    name: str
    address: Address | None = None
    balance: Decimal = Decimal(0)
    tags: set[str] = set()


@dataclasses.dataclass
class Line:
    sku: str
    price: Decimal
    at: datetime | None = None
    inner: list[Line] = dataclasses.field(default_factory=list)


class Point(msgspec.Struct):
    x: int
    y: float = 0.0
    seen: datetime | None = None


class Pair(NamedTuple):
    left: int
    right: str


class Movie(TypedDict):
    title: str
    released: date


Untyped = namedtuple("Untyped", "a b")
T = TypeVar("T")
AWARE = datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)
THING = UUID("12345678-1234-5678-1234-567812345678")


def round_trip(annotation: Any, value: Any) -> Any:
    codec = ResultCodec.of(annotation)
    raw, tag = codec.encode(value, "step 'x'")
    json.loads(raw)
    return codec.decode(raw, tag)


def same(got: Any, value: Any) -> bool:
    return type(got) is type(value) and got == value


MODELS = [
    Address(street_name="Main St", since=date(2020, 1, 1)),
    Customer(name="Ada", address=Address(street_name="x"), balance=Decimal("10.50"), tags={"a", "b"}),
    Line("a", Decimal("1.10"), AWARE, [Line("b", Decimal(2))]),
    Point(1, 2.5, AWARE),
    Pair(1, "x"),
    Colour.RED,
    Level.HIGH,
    Kind.A,
]
SCALARS = [
    AWARE, date(2024, 2, 29), time(12, 30), timedelta(days=3, seconds=5.5), Decimal("0.10"), THING, b"\x00\xff", {1, 2}, frozenset({"a"}),
    (1, "a", None),
]  # fmt: skip


@pytest.mark.parametrize("value", MODELS + SCALARS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("annotated", [True, False], ids=["annotated", "unannotated"])
def test_reads_back_as_what_was_returned(value, annotated):
    assert same(round_trip(type(value) if annotated else Any, value), value)


@pytest.mark.parametrize("value", MODELS + SCALARS, ids=lambda value: type(value).__name__)
def test_optional_annotations_read_both_back(value):
    annotation = Optional[type(value)]
    assert same(round_trip(annotation, value), value)
    assert round_trip(annotation, None) is None


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (list[Customer], [MODELS[1], MODELS[1]]),
        (dict[str, Line], {"a": MODELS[2]}),
        (dict[int, str], {1: "a", 2: "b"}),
        (dict[UUID, Decimal], {THING: Decimal("1.5")}),
        (list[Point], [MODELS[3]]),
        (dict[str, list[Point | None]], {"a": [MODELS[3], None]}),
        (tuple[int, ...], (1, 2, 3)),
        (tuple[int, Customer], (1, MODELS[1])),
        (set[UUID], {THING}),
        (Customer | Line, MODELS[2]),
        (int | str, "5"),
        (int | str | None, 5),
        (Sequence[int], [1, 2]),
        (Mapping[str, Any], {"a": [1, {"b": None}]}),
        (Movie, {"title": "x", "released": date(2024, 1, 1)}),
        (list[Movie], [{"title": "x", "released": date(2024, 1, 1)}]),
        (Annotated[int, Field(gt=0)], 5),
        (list[dict[str, int | None]], [{"a": None}]),
        (T, {"a": 1}),
        (object, [1]),
        (None, None),
        (bytes, b"\xff\x00"),
        (list[float], [0.1, 1e300]),
    ],
    ids=lambda part: type(part).__name__,
)  # fmt: skip
def test_annotations(annotation, value):
    got = round_trip(annotation, value)
    assert got == value
    assert type(got) is type(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=5),
    max_leaves=30,
)


@given(JSON)
@example({"null": None, "NaN": "Infinity", "text": "null"})
@example(2**200)
@example([[[]]] * 200)
@pytest.mark.parametrize("annotation", [Any, object, dict, str], ids=str)
def test_plain_values_read_back_exactly(annotation, value):
    assert round_trip(annotation, value) == value


@given(
    st.builds(
        Line, st.text(st.characters(codec="utf-8")), st.decimals(allow_nan=False, allow_infinity=False),
        st.none() | st.datetimes(timezones=st.just(UTC)),
    )
)  # fmt: skip
def test_dataclasses_read_back_exactly(value):
    assert round_trip(Line, value) == value
    assert round_trip(Any, value) == value


@given(st.sets(st.uuids()), st.lists(st.timedeltas()), st.binary())
def test_containers_read_back_exactly(ids, spans, raw):
    assert round_trip(set[UUID], ids) == ids
    assert round_trip(list[timedelta], spans) == spans
    assert round_trip(bytes, raw) == raw


def test_models_are_stored_under_their_wire_names():
    raw, tag = ResultCodec.of(Any).encode(MODELS[0], "step 'x'")
    assert json.loads(raw) == {"streetName": "Main St", "since": "2020-01-01"}
    assert tag == f"{__name__}:Address"


def test_a_class_that_has_gone_reads_back_as_plain_json():
    raw, _ = ResultCodec.of(Any).encode(MODELS[3], "step 'x'")
    codec = ResultCodec.of(Any)
    assert codec.decode(raw, "nowhere:Point") == codec.decode(raw, f"{__name__}:Nothing") == json.loads(raw)
    assert codec.decode(raw, "os:system") == json.loads(raw)


def test_a_list_returned_for_a_tuple_is_read_as_the_annotation_says():
    assert round_trip(tuple[int, ...], [1, 2]) == (1, 2)
    assert round_trip(Line, {"sku": "a", "price": "1"}) == Line("a", Decimal(1))


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


class Opaque:
    pass


@dataclasses.dataclass
class Blob:
    content: bytes


REFUSED = [
    (Any, Opaque(), "Opaque", "$"),
    (Any, {"a": [1, {"b": Opaque()}]}, "Opaque", "$.a[1].b"),
    (Any, Line("a", Opaque()), "Opaque", "$.price"),
    (Any, [Point(1, Opaque())], "Opaque", "$[0].y"),
    (Any, float("nan"), "nan", "$"),
    (float, float("inf"), "inf", "$"),
    (Any, {"rates": [1.5, float("-inf")]}, "-inf", "$.rates[1]"),
    (list[float], [1.0, float("nan")], "nan", "$[1]"),
    (Line, Line("a", Decimal("NaN")), "NaN", "$.price"),
    (Point, Point(1, float("nan")), "nan", "$.y"),
    (Any, {"null": None, "a": Decimal("sNaN"), "b": Decimal("1e9999")}, "NaN", "$.a"),
    (Any, {("a", "b"): 1}, "tuple", "$"),
    (Any, {"x": {frozenset(): 1}}, "frozenset", "$.x"),
    (Blob, Blob(b"\xff"), "Blob", "utf-8"),
    (Any, nested(MAX_JSON_DEPTH + 1), f"deeper than {MAX_JSON_DEPTH}", "$[0][0]"),
    (list[Any], nested(MAX_JSON_DEPTH + 1), f"deeper than {MAX_JSON_DEPTH}", "$[0][0]"),
    (Any, nested(100_000), f"deeper than {MAX_JSON_DEPTH}", "$[0][0]"),
    (Any, "\ud800", "surrogates", None),
    (Any, {"a": "\ud800"}, "surrogates", "$.a"),
    (list[str], ["\ud800"], "surrogates", None),
    (Any, [Customer(name="x")], "annotate", "Customer"),
    (Any, {"a": Pair(1, "x")}, "annotate", "Pair"),
    (Any, (Point(1),), "annotate", "Point"),
    (Customer, None, "Customer", "NoneType"),
    (Customer, {"nam": "x"}, "Customer", "name: Field required"),
    (Point, {"x": "one"}, "Point", "$.x"),
    (int | None, "x", "int | None", "str"),
    (Opaque, Opaque(), "Opaque", "annotation"),
    (Any, open, "builtin_function", "$"),
    (Any, iter([]), "iterator", "$"),
    (Any, lambda: None, "function", "$"),
]


@pytest.mark.parametrize(("annotation", "value", "word", "place"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_what_cannot_be_stored_is_refused_with_step_type_and_path(annotation, value, word, place):
    with pytest.raises(NotSerializableError) as caught:
        round_trip(annotation, value)
    message = str(caught.value)
    assert message.startswith("step 'x'")
    assert len(message) < 500
    assert word is None or word in message
    assert place is None or place in message


def test_a_cycle_is_refused():
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(NotSerializableError, match="step 'x'"):
        encode_json(loop, "step 'x'")


def test_the_deepest_value_allowed_is_stored():
    assert round_trip(Any, nested(MAX_JSON_DEPTH)) == nested(MAX_JSON_DEPTH)


def test_no_warnings_are_left_for_the_user_to_see():
    # pytest turns warnings into errors
    assert round_trip(list[int], [1, 2.5]) == [1, 2.5]
    assert round_trip(dict[str, Decimal], {"a": "1.5"}) == {"a": Decimal("1.5")}

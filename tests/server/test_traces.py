"""Trace trees by tables: names, order, attempts, what steps waited for, and outputs (protocol section 6)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.base.ids import derived_id, ulid_bytes, ulid_text
from holdfast.server.traces import Span, legacy_tree, output_id, output_of, place_of, preview_tree, run_output
from holdfast.store.reads import AttemptView, RunDetail, RunView, StepView

START = 1_700_000_000_000
RUN_ID = ulid_text(derived_id(START, "run"))


def attempt(number: int, at: int, *, again: int | None = None, name: str = "Error") -> AttemptView:
    error = {"name": name, "message": f"failed {number}", "stack": "at x"}
    return AttemptView(number, START + at, START + at + 10, None if again is None else START + again, error)


def step(key: str, start: int, end: int | None = None, **changes: Any) -> StepView:
    values: dict[str, Any] = {
        "key": key, "name": key, "kind": "run", "state": "pending" if end is None else "done", "seq": start,
        "started_at": START + start, "ended_at": None if end is None else START + end, "attempt": 0, "due": None,
        "data": None, "error": None, "attempts": (),
    }  # fmt: skip
    return StepView(**{**values, **changes})


def run(*steps: StepView, status: str = "COMPLETED", failed: tuple[AttemptView, ...] = (), **changes: Any) -> RunDetail:
    view = RunView(
        id=RUN_ID, function_id=1, function="shop-fulfil", function_name="Fulfil order", app="shop",
        event_id=ulid_text(derived_id(START, "event")), event_name="shop/order.paid", status=status, queued_at=START,
        started_at=START + 1, ended_at=None if status in {"RUNNING", "WAITING"} else START + 9000, attempt=len(failed),
        steps=len(steps), error=None, parent_id=None, origin="event", key=None,
    )  # fmt: skip
    values: dict[str, Any] = {
        "event": None, "logs": (), "queue": None, "output": b'"done"' if status == "COMPLETED" else None,
        "error": {"name": "Error", "message": "no", "stack": "at x"} if status == "FAILED" else None, "children": (), "notes": (),
    }  # fmt: skip
    return RunDetail(run=view, steps=steps, function_attempts=failed, **{**values, **changes})


def shape(span: Span) -> tuple[Any, ...]:
    """Name, status and attempts of a span and of those below it."""
    below = [shape(child) for child in span.children_spans]
    return (span.name, span.status, span.attempts, *([below] if below else []))


FAILED_0 = ("Attempt 0", "FAILED", 0)
RETRY = attempt(0, 10, again=100)
LEGACY = {
    "steps in the order of their start, however recorded": (
        run(step("b", 50, 60), step("a", 10, 90)),
        [("a", "COMPLETED", 0), ("b", "COMPLETED", 0), ("function success", "COMPLETED", 0)],
    ),
    "a step with two retries": (
        run(step("a", 10, 300, attempt=2, attempts=(attempt(0, 10, again=100), attempt(1, 100, again=200)))),
        [
            ("a", "COMPLETED", 2, [FAILED_0, ("Attempt 1", "FAILED", 1), ("Attempt 2", "COMPLETED", 2)]),
            ("function success", "COMPLETED", 0),
        ],
    ),
    "a step that failed for good": (
        run(
            step("a", 10, 200, state="failed", error={"name": "E", "message": "m"}, attempts=(RETRY, attempt(1, 100))),
            status="FAILED",
        ),
        [
            ("a", "FAILED", 1, [FAILED_0, ("Attempt 1", "FAILED", 1)]),
            ("function error", "FAILED", 0, [FAILED_0]),
        ],
    ),
    "a function that failed once after its step": (
        run(step("a", 10, 20), failed=(attempt(0, 30, again=100),)),
        [
            ("a", "COMPLETED", 0),
            ("function success", "COMPLETED", 1, [FAILED_0, ("Attempt 1", "COMPLETED", 1)]),
        ],
    ),
    "a function without retries that failed": (
        run(status="FAILED", failed=(attempt(0, 10),)),
        [("function error", "FAILED", 0, [FAILED_0])],
    ),
    "the same, its failure recorded with the end only": (
        run(status="FAILED"),
        [("function error", "FAILED", 0, [FAILED_0])],
    ),
    "a function that failed after its retries": (
        run(status="FAILED", failed=(RETRY, attempt(1, 100))),
        [("execute", "FAILED", 2, [FAILED_0, ("Attempt 1", "FAILED", 1)])],
    ),
    "a function that waits for its retry": (
        run(status="RUNNING", failed=(RETRY,)),
        [("execute", "RUNNING", 0, [FAILED_0])],
    ),
    "a step that waits for its retry": (
        run(step("a", 10, attempts=(RETRY,)), status="WAITING"),
        [("a", "RUNNING", 0, [FAILED_0])],
    ),
    "a failed call before a wait belongs to the wait": (
        run(step("wait", 100, kind="wait_event"), status="WAITING", failed=(RETRY,)),
        [("wait", "WAITING", 0, [FAILED_0])],
    ),
    "and stays with it when it is over": (
        run(step("wait", 100, 200, kind="wait_event", data=b"null"), failed=(RETRY,)),
        [
            ("wait", "COMPLETED", 0, [FAILED_0, ("Attempt 1", "COMPLETED", 1)]),
            ("function success", "COMPLETED", 0),
        ],
    ),
    "and to a step that was run after it": (
        run(step("a", 100, 200), failed=(RETRY,)),
        [
            ("a", "COMPLETED", 1, [FAILED_0, ("Attempt 1", "COMPLETED", 1)]),
            ("function success", "COMPLETED", 0),
        ],
    ),
    "a cancelled run keeps its steps": (
        run(step("a", 10, 20), step("sleep", 20, kind="sleep"), status="CANCELLED"),
        [("a", "COMPLETED", 0), ("sleep", "CANCELLED", 0)],
    ),
    "parallel steps under way": (
        run(step("a", 10), step("b", 10), status="RUNNING"),
        [("a", "RUNNING", 0), ("b", "RUNNING", 0)],
    ),
    "nothing but the function": (run(), [("function success", "COMPLETED", 0)]),
}


@pytest.mark.protocol("trace.tree")
@pytest.mark.parametrize("case", LEGACY)
def test_the_legacy_tree(case):
    detail, expected = LEGACY[case]
    tree = legacy_tree(detail)
    assert [shape(child) for child in tree.children_spans] == expected
    assert tree.name == "Fulfil order"
    assert tree.is_root
    assert all(child.parent_span_id == tree.span_id for child in tree.children_spans)
    spans = [tree, *tree.children_spans, *(two for one in tree.children_spans for two in one.children_spans)]
    assert len({span.span_id for span in spans}) == len(spans)
    assert {span.trace_id for span in spans} == {ulid_bytes(RUN_ID).hex()}


@pytest.mark.protocol("trace.tree")
def test_the_attempts_of_a_failing_function_hang_below_the_root():
    tree = legacy_tree(run(status="FAILED", failed=(RETRY, attempt(1, 100))))
    assert {one.parent_span_id for one in tree.children_spans[0].children_spans} == {tree.span_id}


PREVIEW = {
    "a step": (run(step("a", 10, 20)), [("a", "COMPLETED", 0, "RUN"), ("Finalization", "COMPLETED", 0, "FINALIZATION")]),
    "kinds": (
        run(
            step("s", 10, 20, kind="sleep"), step("w", 20, 30, kind="wait_event", data=b"null"), step("e", 30, 40, kind="send"),
            step("ai", 40, 50, kind="ai"), step("f", 50, 60, kind="fetch"), step("g", 60, 70, kind="wait_signal", data=b"null"),
        ),
        [
            ("s", "COMPLETED", 0, "SLEEP"), ("w", "COMPLETED", 0, "WAIT_FOR_EVENT"), ("e", "COMPLETED", 0, "step.sendEvent"),
            ("ai", "COMPLETED", 0, "step.ai.infer"), ("f", "COMPLETED", 0, "step.fetch"),
            ("g", "COMPLETED", 0, "WAIT_FOR_SIGNAL"), ("Finalization", "COMPLETED", 0, "FINALIZATION"),
        ],
    ),
    "failed": (run(status="FAILED", failed=(attempt(0, 10),)), [("Finalization", "FAILED", 0, "FINALIZATION")]),
    "between two attempts": (run(status="RUNNING", failed=(RETRY,)), [("Execution", "RUNNING", 0, "")]),
}  # fmt: skip


@pytest.mark.protocol("trace.preview")
@pytest.mark.parametrize("case", PREVIEW)
def test_the_preview_tree(case):
    detail, expected = PREVIEW[case]
    tree = preview_tree(detail)
    assert (tree.name, tree.status) == ("Run", detail.run.status)
    assert [(one.name, one.status, one.attempts, one.step_type) for one in tree.children_spans] == expected


@pytest.mark.protocol("run.states")
@pytest.mark.parametrize(
    ("status", "expected", "has_output"),
    [
        ("QUEUED", "QUEUED", False), ("RUNNING", "RUNNING", False), ("WAITING", "RUNNING", False),
        ("COMPLETED", "COMPLETED", True), ("FAILED", "FAILED", True), ("CANCELLED", "CANCELLED", False),
        ("SKIPPED", "SKIPPED", False),
    ],
)  # fmt: skip
def test_the_root_agrees_with_its_run(status, expected, has_output):
    for tree in (legacy_tree(run(status=status)), preview_tree(run(status=status))):
        assert tree.status == expected
        assert (tree.output_id is not None) is has_output


@pytest.mark.protocol("trace.steps")
class TestStepInfo:
    def test_sleep(self):
        asleep = step("s", 10, kind="sleep", asked=b'{"until":%d}' % (START + 500))
        info = legacy_tree(run(asleep, status="WAITING")).children_spans[0]
        assert (info.step_op, info.status, info.step_info.sleep_until, info.output_id) == ("SLEEP", "WAITING", START + 500, None)
        done = step("s", 10, 510, kind="sleep", data=b"null", asked=b'{"until":%d}' % (START + 510))
        info = legacy_tree(run(done)).children_spans[0]
        assert (info.duration, info.output_id, info.step_info.sleep_until) == (500, None, START + 510)

    @pytest.mark.parametrize(
        ("changes", "found", "timed_out"),
        [
            ({"end": None}, None, None),
            ({"end": 50, "data": b'{"name":"resume","data":{},"id":"e1","ts":1}'}, "e1", False),
            ({"end": 50, "data": b"null"}, None, True),
        ],
    )
    def test_wait_for_event(self, changes, found, timed_out):
        asked = b'{"event":"resume","where":{},"if":null,"timeout_at":%d}' % (START + 900)
        waiting = step("w", 10, kind="wait_event", asked=asked, **changes)
        span = legacy_tree(run(waiting, status="WAITING" if timed_out is None else "COMPLETED")).children_spans[0]
        info = span.step_info
        assert (info.event_name, info.expression, info.timeout) == ("resume", None, START + 900)
        assert (info.found_event_id, info.timed_out) == (found, timed_out)
        if timed_out is None:
            assert (span.status, span.ended_at, span.output_id, span.children_spans) == ("WAITING", None, None, ())

    def test_what_a_wait_compares_is_its_expression(self):
        asked = json.dumps({"event": "x", "where": {"order_id": "o1"}, "if": "async.data.n > 1", "timeout_at": 1})
        info = legacy_tree(run(step("w", 1, kind="wait_event", asked=asked.encode()), status="WAITING")).children_spans[0]
        assert info.step_info.expression == 'async.data.order_id == "o1" && (async.data.n > 1)'

    def invoked(self, *, ended: bool) -> RunView:
        child = run(status="COMPLETED" if ended else "RUNNING").run
        changes = {"id": ulid_text(derived_id(START + 20, ulid_bytes(RUN_ID), "call")), "origin": "invoke", "parent_id": RUN_ID}
        return RunView(**{**{name: getattr(child, name) for name in RunView.__struct_fields__}, **changes})

    def test_invoke_under_way_tells_the_run(self):
        child = self.invoked(ended=False)
        asked = json.dumps({"function": "shop-pack", "run_id": child.id, "timeout_at": START + 900}).encode()
        span = legacy_tree(run(step("call", 10, kind="invoke", asked=asked), status="WAITING", children=(child,))).children_spans[0]
        info = span.step_info
        assert (span.step_op, span.status, span.output_id) == ("INVOKE", "WAITING", None)
        assert (info.run_id, info.function_id, info.triggering_event_id) == (child.id, "shop-pack", child.event_id)
        assert (info.timed_out, info.return_event_id) == (None, None)

    def test_invoke_done(self):
        child = self.invoked(ended=True)
        span = legacy_tree(run(step("call", 10, 50, kind="invoke", data=b"1"), children=(child,))).children_spans[0]
        assert (span.step_info.run_id, span.step_info.timed_out) == (child.id, False)
        assert ulid_bytes(span.step_info.return_event_id)

    @pytest.mark.parametrize("name", ["InngestInvokeTimeoutError", "InvokeTimeoutError"])
    def test_invoke_timed_out(self, name):
        late = step("call", 10, 50, kind="invoke", state="failed", error={"name": name, "message": "late"})
        span = legacy_tree(run(late, children=(self.invoked(ended=False),))).children_spans[0]
        info = span.step_info
        assert (span.status, info.timed_out, info.run_id, info.return_event_id) == ("FAILED", True, None, None)

    def test_a_plain_step(self):
        span = legacy_tree(run(step("a", 10, 20))).children_spans[0]
        assert (span.step_op, span.step_info.type) == ("RUN", None)


@pytest.mark.protocol("trace.outputs")
class TestOutputs:
    DETAIL = run(
        step("good", 10, 20, data=b'{"a":1}'),
        step("bad", 20, 200, state="failed", error={"name": "E", "message": "m"}, attempts=(RETRY, attempt(1, 100))),
        status="FAILED",
        failed=(attempt(0, 300, again=400), attempt(1, 400)),
    )

    def every(self) -> dict[str, Any]:
        tree = legacy_tree(self.DETAIL)
        found = {}
        for span in (tree, *tree.children_spans, *(two for one in tree.children_spans for two in one.children_spans)):
            assert span.output_id is not None
            place = place_of(span.output_id)
            assert output_id(place) == span.output_id
            output = output_of(self.DETAIL, place)
            assert output is not None
            assert (output.data is None) != (output.error is None)
            found[f"{span.parent_span_id == tree.span_id}/{span.name}/{place.step}"] = output.data or output.error["message"]
        return found

    def test_each_span_has_its_own(self):
        assert self.every() == {
            "False/Fulfil order/": "no",
            "True/good/good": '{"a":1}',
            "True/bad/bad": "m",
            "False/Attempt 0/bad": "failed 0",
            "False/Attempt 1/bad": "failed 1",
            "True/function error/": "no",
            "True/Attempt 0/": "failed 0",
            "True/Attempt 1/": "failed 1",
        }

    def test_nothing_yet(self):
        assert output_of(run(step("a", 10), status="RUNNING"), place_of(output_id(place_of(output_id_of("a"))))) is None
        assert output_of(run(status="RUNNING"), place_of(output_id_of(""))) is None
        assert output_of(run(), place_of(output_id_of("unknown"))) is None

    @pytest.mark.parametrize("text", ["", "x", "AAAA", "é", "W10"])
    def test_no_output_id(self, text):
        with pytest.raises(ValueError, match="no output id"):
            place_of(text)

    def test_the_output_of_a_run(self):
        assert run_output(run(output=None)) == "null"
        assert run_output(run(status="RUNNING")) is None
        assert run_output(run(status="CANCELLED")) is None
        assert json.loads(run_output(run(status="FAILED"))) == {"name": "Error", "message": "no", "stack": "at x"}
        given = run(status="FAILED", error={"name": "E", "message": "m", "output": {"code": "c", "message": "m"}})
        assert json.loads(run_output(given)) == {"code": "c", "message": "m"}


def output_id_of(key: str) -> str:
    span = legacy_tree(run(step(key, 10, 20)) if key else run())
    return (span.children_spans[0] if key else span).output_id or ""

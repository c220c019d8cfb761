"""The questions that the official SDKs' tools ask by GraphQL, word for word (protocol section 6), and asking them."""

from __future__ import annotations

from typing import Any

from server_kit import Running

# the Python SDK's
PY_SPANS = "query($run_id:String!){ run(runID:$run_id){ trace{ childrenSpans{ name outputID } } } }"
PY_OUTPUT = "query($output_id:String!){ runTraceSpanOutputByID(outputID:$output_id){ data error{ message name stack } } }"
PY_EVENT = "query($event_id:ID!){ event(query:{eventId:$event_id}){ functionRuns{ id } } }"
PY_RUN = "query($run_id:String!){ run(runID:$run_id){ output status } runTrigger(runID:$run_id){ payloads } }"

# the Go SDK's
_GO_SPAN = """name runID status attempts isRoot parentSpanID spanID
  startedAt endedAt duration outputID stepOp stepInfo{ __typename ...on InvokeStepInfo{triggeringEventID functionID timeout returnEventID runID timedOut}
  ...on SleepStepInfo{sleepUntil} ...on WaitForEventStepInfo{eventName expression timeout foundEventID timedOut} ...on RunStepInfo{type} }"""
GO_FUNCTIONS = "query{ functions{ id name app{ id externalID name } } }"
GO_FUNCTION_RUN = "query($id:ID!){ functionRun(query:{functionRunId:$id}){ output status } }"
GO_STATUS = "query($id:String!){ run(runID:$id){ status } }"
GO_RUN = (
    "query($runID:String!,$preview:Boolean){ run(runID:$runID){ status traceID isBatch batchCreatedAt cronSchedule endedAt "
    "trace(preview:$preview){ " + _GO_SPAN + " childrenSpans{ " + _GO_SPAN + " childrenSpans{ " + _GO_SPAN
    + " childrenSpans{ " + _GO_SPAN + " } } } } } }"
)  # fmt: skip
GO_OUTPUT = "query($id:String!){ runTraceSpanOutputByID(outputID:$id){ data error{ message name stack } } }"
GO_TRIGGER = "query($id:String!){ runTrigger(runID:$id){ eventName IDs timestamp payloads isBatch batchID cron } }"
GO_EVENT = "query($id:ID!){ event(query:{eventId:$id}){ functionRuns{ id } } }"
GO_EVENT_V2 = """query($id:ULID!){ eventV2(id:$id){ id idempotencyKey name occurredAt raw receivedAt
  runs{ id function{name} status } version } }"""
GO_EVENTS_V2 = """query($after:String,$from:Time!,$until:Time,$query:String,$eventNames:[String!],$includeInternalEvents:Boolean!){
  eventsV2(first:40,after:$after,filter:{from:$from until:$until query:$query eventNames:$eventNames includeInternalEvents:$includeInternalEvents}){
  edges{ cursor node{ name id occurredAt receivedAt raw runs{ status id startedAt endedAt function{name slug} } } }
  totalCount pageInfo{ hasNextPage endCursor hasPreviousPage startCursor } } }"""
GO_RUNS = """query($first:Int!,$after:String,$startTime:Time!,$endTime:Time,$status:[FunctionRunStatus!],$timeField:RunsV2OrderByField!,
  $query:String,$functionIDs:[UUID!],$field:RunsV2OrderByField!,$direction:RunsOrderByDirection!){
  runs(first:$first,after:$after,filter:{from:$startTime until:$endTime status:$status timeField:$timeField query:$query functionIDs:$functionIDs},
  orderBy:[{field:$field direction:$direction}],preview:true){
  edges{ cursor node{ id status traceID startedAt queuedAt endedAt } } pageInfo{ startCursor endCursor hasNextPage } totalCount(preview:true) } }"""

# the TypeScript SDK's
TS_RUN = "query($runId:String!){ run(runID:$runId){ status trace(preview:true){ status outputID } } }"
TS_OUTPUT = "query($traceID:String!){ runTraceSpanOutputByID(outputID:$traceID){ data error{ message name } } }"
TS_SPANS = """query($runID:String!){ run(runID:$runID){ trace(preview:true){ ...span childrenSpans{ ...span childrenSpans{ ...span } } } } }
  fragment span on RunTraceSpan{ name stepID spanID metadata{scope kind values updatedAt} }"""
TS_METADATA = """query($runID:String!,$preview:Boolean){ run(runID:$runID){ trace(preview:$preview){
  childrenSpans{ metadata{scope kind values} name } } } }"""
TS_EVENT = "query Event($id:ULID!){ eventV2(id:$id){ idempotencyKey name raw } }"
TS_STREAM = "query{ stream(query:{limit:999,includeInternalEvents:false}){ id trigger runs{ id function{ name } } } }"
TS_EVENTS = "query($query:EventsQuery!){ events(query:$query){ id name payload } }"
TS_EXAMPLE = """query($runID:String!){ run(runID:$runID){ trace(preview:true){ name stepType attempts outputID status
  childrenSpans{ name stepType attempts outputID status childrenSpans{ name stepType attempts outputID status } } } } }"""


async def gql(server: Running, question: str, /, **variables: Any) -> dict[str, Any]:
    """The data of an answer without errors."""
    response = await server.http.post("/v0/gql", json={"query": question, "variables": variables})
    body = response.json()
    assert response.status_code == 200, body
    assert "errors" not in body, body
    return body["data"]


async def errors(server: Running, question: str, /, **variables: Any) -> list[str]:
    """The messages of an answer with errors."""
    response = await server.http.post("/v0/gql", json={"query": question, "variables": variables})
    return [error["message"] for error in response.json()["errors"]]

"""Steps that SDKs report while a call goes on (protocol section 1.6)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.ids import ulid_bytes
from holdfast.engine.checkpoints import checkpoint
from holdfast.engine.operations import RunFailure
from holdfast.server.errors import ApiError, ErrorBody
from holdfast.server.operation import RUN_ID, Answer, Api, Operation, json_response, read_id
from holdfast.wire.checkpoints import decode_checkpoint
from holdfast.wire.errors import WireError


async def record(api: Api, request: Request) -> Response:
    run_id = ulid_bytes(read_id(request, "run_id", "a run"))
    engine = api.engine
    try:
        recorded = await checkpoint(engine, engine.driver, run_id, decode_checkpoint(await request.body()))
    except WireError as error:
        raise ApiError(400, str(error), "checkpoint_invalid") from error
    except RunFailure as error:
        raise ApiError(413, error.message, "checkpoint_too_large") from error
    if not recorded:
        raise ApiError(409, "this call is not the one that counts any more; its steps were not recorded", "stale_dispatch")
    return json_response({"data": None})


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/checkpoint/{run_id}/async",
        id="checkpointSteps",
        group="Applications",
        handler=record,
        summary="Record steps of a call that goes on",
        description="SDKs report steps so that they have executed one after the other within one call.",
        params=(RUN_ID,),
        body={"type": "object"},
        answers={
            200: Answer("They are recorded.", dict, envelope=False),
            400: Answer("What was reported are not steps that are done with.", ErrorBody, envelope=False),
            409: Answer("Another call counts by now; the application should end this one.", ErrorBody, envelope=False),
            413: Answer("The run may not have so many steps, or so much state.", ErrorBody, envelope=False),
        },
    ),
)

"""What SDKs send of themselves, and metrics where Inngest's cloud has them (protocol sections 1.4 and 1.5)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from holdfast.server.metrics import metrics_response
from holdfast.server.operation import Answer, Api, Operation, Param, json_response


async def telemetry(_api: Api, request: Request) -> Response:
    await request.body()
    return json_response({"ok": True})


async def metrics(api: Api, _request: Request) -> Response:
    return await metrics_response(api.engine, api.metrics)


def _accepted(path: str, name: str, summary: str) -> Operation:
    return Operation(
        method="POST",
        path=path,
        id=name,
        group="Applications",
        handler=telemetry,
        summary=summary,
        description="It is taken so that SDKs don't report an error, and is not kept.",
        body={},
        body_required=False,
        answers={200: Answer("It was taken.", dict, envelope=False)},
    )


OPERATIONS = (
    _accepted("/v0/telemetry", "sendTelemetry", "Take telemetry of an SDK"),
    _accepted("/v1/traces/userland", "sendTraces", "Take OpenTelemetry traces of functions"),
    _accepted("/dev/traces", "sendDevTraces", "Take OpenTelemetry traces, in development"),
    Operation(
        method="GET",
        path="/v1/prom/{env}",
        id="getEnvironmentMetrics",
        group="Server",
        handler=metrics,
        summary="Metrics for Prometheus, where the cloud has them",
        params=(Param("env", "Any text: there is one environment.", "path"),),
        answers={200: Answer("The text format.", None, media_type="text/plain")},
    ),
)

"""The studio's jobs, as its API and its pages read them: runs of its functions, and of nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import HTTPException

from holdfast import Function, RunInfo, RunNotFoundError

from .client import app
from .functions import export_pdf, functions
from .resources import Studio

SUCCEEDED = "COMPLETED"
_BY_SLUG: dict[str, Function[Any, Any]] = {function.slug: function for function in functions}


async def find(job_id: str) -> RunInfo:
    """A job.

    Raises:
        HTTPException: 404, there is none.
    """
    try:
        run = await app.runs.info(job_id)
    except RunNotFoundError as error:
        raise HTTPException(404, "there is no such job") from error
    if run.function not in _BY_SLUG:
        raise HTTPException(404, "there is no such job")
    return run


async def recent(limit: int) -> list[RunInfo]:
    """The latest jobs."""
    return [run async for run in app.runs(limit=limit * 2) if run.function in _BY_SLUG][:limit]


def function_of(run: RunInfo) -> Function[Any, Any]:
    """The function that a job is a run of."""
    return _BY_SLUG[run.function]


def exported(run: RunInfo) -> Path:
    """The file that an export has written.

    Raises:
        HTTPException: 404, it is no export or has not completed; 410, the file is gone.
    """
    if run.function != export_pdf.slug or run.status != SUCCEEDED:
        raise HTTPException(404, "there is no such export, or it has not completed")
    studio: Studio = app.resources
    path = studio.exporter.path(run.id)
    if not path.is_file():
        raise HTTPException(410, "the file has been removed; export the document again")
    return path

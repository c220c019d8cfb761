"""What runs say that are executed by calling their application: how far they are, and what they log."""

from __future__ import annotations

from holdfast.base.ids import ulid_text
from holdfast.core.reporting import MAX_LINE, ReportElsewhere, checked, row_of
from holdfast.core.rows import LogRow, ProgressRow
from holdfast.engine.host import Host
from holdfast.engine.notices import Notice
from holdfast.wire.metadata import LogValues, decode_metadata, lines_said, progress_said

_SEQUENCE_BITS = 20


class Reported:
    """Keeps it, for one node."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._last = 0

    async def take(self, run_id: bytes, body: bytes) -> tuple[bool, set[str]]:
        """Keep what a report has of it.

        Returns:
            Whether the run is there and goes on; the kinds of metadata that the report has.

        Raises:
            WireError: it is no report.
            StepUsageError: it says something impossible.
        """
        host = self._host
        report = decode_metadata(body)
        said, lines = progress_said(report), lines_said(report)
        rows: list[ProgressRow | LogRow] = [self._line(run_id, line) for line in lines]
        if said is not None:
            rows.append(row_of(run_id, checked(said.fraction, said.text, host.clock.now())))
        if rows:
            if not await host.submit(ReportElsewhere(run_id, rows)):
                return False, set()
            if host.notices.wanted:
                host.notices.publish(Notice("progress", ulid_text(run_id)))
        return True, {item.kind for item in report.metadata}

    def _line(self, run_id: bytes, line: LogValues) -> LogRow:
        # in the order in which they come, whatever clock the application has
        self._last = max(self._last + 1, self._host.clock.now() << _SEQUENCE_BITS)
        return LogRow(run_id, self._last, line.at, line.level, line.message[:MAX_LINE], line.step)

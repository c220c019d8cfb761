"""The statements that read flow control. All of them have a bound, and an index that they walk in its order."""

from __future__ import annotations

FUNCTION = "SELECT config, limits, paused FROM functions WHERE id = ?"
FUNCTIONS = """
SELECT id, slug, name, app, archived, paused, config, limits FROM functions
WHERE (?1 IS NULL AND archived = 0) OR slug = ?1 ORDER BY app, slug
"""
LANE = "SELECT blocked, until, gate FROM lanes WHERE lane = ?"
# how many wait in a lane, and since when its first does: woken, due after a delay, or as long as its run is there
_IN_LINE = """
(SELECT count(*) FROM (SELECT 1 FROM queue q INDEXED BY queue_ready WHERE q.state = 0 AND q.lane = l.lane LIMIT ?3)),
(SELECT CASE WHEN q.epoch > 0 THEN q.rank WHEN q.due > 0 THEN q.due ELSE r.queued_at END
 FROM queue q INDEXED BY queue_ready CROSS JOIN runs r ON r.id = q.run_id
 WHERE q.state = 0 AND q.lane = l.lane ORDER BY q.rank, q.id LIMIT 1)
"""
# all lanes of a function: its id alone, or its id, a slash and the values of its keys; '0' comes after '/'
LANES = f"""
SELECT l.lane, l.blocked, l.until, l.gate, {_IN_LINE} FROM lanes l WHERE l.lane = ?1
UNION ALL
SELECT l.lane, l.blocked, l.until, l.gate, {_IN_LINE} FROM lanes l WHERE l.lane >= ?1 || '/' AND l.lane < ?1 || '0' LIMIT ?2
"""
AHEAD = """
SELECT count(*) FROM (
  SELECT 1 FROM queue INDEXED BY queue_ready WHERE state = 0 AND lane = ? AND (rank, id) < (?, ?) LIMIT ?
)
"""
RUN_COUNT = "SELECT used FROM run_counts WHERE gate = ?"
RUN_COUNTS = "SELECT gate, used FROM run_counts WHERE gate >= ? AND gate < ? LIMIT ?"
WINDOWS = "SELECT gate, moments FROM windows WHERE gate >= ? AND gate < ? LIMIT ?"
THROTTLES = "SELECT gate, tat FROM throttles WHERE gate >= ? AND gate < ? LIMIT ?"

TIMERS = """
SELECT q.run_id, coalesce(f.slug, ''), coalesce(f.name, ''), q.due, q.epoch > 0
FROM queue q INDEXED BY queue_timers CROSS JOIN runs r ON r.id = q.run_id LEFT JOIN functions f ON f.id = r.function_id
WHERE q.state = 1 ORDER BY q.due LIMIT ?
"""

_GATHER = "SELECT kind, key, run_id, event_id, first_at, due, count, bytes FROM gathers"
GATHERS = f"SELECT * FROM ({_GATHER} WHERE function_id = ? LIMIT ?) ORDER BY due"
ALARMS = "SELECT kind, at, reason FROM alarms WHERE run_id = ? ORDER BY at"
CANCELS = "SELECT lookup, expression, expires FROM waits WHERE run_id = ? AND key >= ? AND key < ? ORDER BY key"
BATCH_EVENTS = """
SELECT b.event_id, coalesce(e.name, ''), coalesce(e.received_at, 0)
FROM batch_events b LEFT JOIN events e ON e.id = b.event_id WHERE b.run_id = ? ORDER BY b.position LIMIT ?
"""
# an event that waits in a batch has no row of its own that says so
BATCHED = """
SELECT coalesce(f.slug, ''), 'batched', g.run_id, coalesce(e.received_at, g.first_at), g.count || ' so far', g.due, g.key
FROM batch_events b CROSS JOIN gathers g INDEXED BY gathers_by_run ON g.run_id = b.run_id
  LEFT JOIN functions f ON f.id = g.function_id LEFT JOIN events e ON e.id = b.event_id
WHERE b.event_id = ? ORDER BY g.function_id LIMIT ?
"""

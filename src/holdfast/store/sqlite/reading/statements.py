"""The statements of the reading side. `r` is a run, `q` a queue item, `f` a function, `e` an event.

Indexes are named where the planner, which has no statistics here, might choose another and read a whole table.
"""

from __future__ import annotations

# -- runs ---------------------------------------------------------------------------------------------------------

# a step's item has the run's id and the step's hash as its id: all items of a run lie between these bounds
_ITEMS_OF_R = f"id >= r.id AND id < CAST(r.id || x'{'FF' * 24}' AS BLOB)"
ACTIVE = f"EXISTS (SELECT 1 FROM queue WHERE {_ITEMS_OF_R} AND state = 2)"
"""A run some item of which is leased: what waits for a place doesn't run."""

WAITING = -1
"""The derived status, as `RUN_VIEW` gives it."""

RUN_VIEW = f"""
SELECT r.id, r.function_id, coalesce(f.slug, ''), coalesce(f.name, ''), coalesce(f.app, ''),
  r.event_id, coalesce(e.name, ''),
  CASE WHEN r.status >= 2 THEN r.status WHEN r.started_at IS NULL THEN 0 WHEN {ACTIVE} THEN 1 ELSE {WAITING} END,
  r.queued_at, r.started_at, r.ended_at, r.attempt,
  CASE WHEN r.ended_at IS NOT NULL THEN r.steps
    ELSE max(r.steps, coalesce((SELECT max(s.seq) FROM steps s WHERE s.run_id = r.id), 0)) END,
  r.error, r.parent_id, r.origin, r.key, r.version, r.reason, r.batch, p.at, p.fraction, p.text
FROM runs r LEFT JOIN functions f ON f.id = r.function_id LEFT JOIN events e ON e.id = r.event_id
  LEFT JOIN progress p ON p.run_id = r.id
"""
RUNS_BY_ID = RUN_VIEW + "WHERE r.id IN ({marks})"
CHILDREN = RUN_VIEW + "WHERE r.parent_id = ? ORDER BY r.id LIMIT ?"
# the first event of a batch is its run's own; the others are in the list of its events
RUNS_OF_EVENT = f"""{RUN_VIEW} WHERE r.id IN (
  SELECT id FROM runs INDEXED BY runs_by_event WHERE event_id = ?1
  UNION SELECT run_id FROM batch_events INDEXED BY batch_events_by_event WHERE event_id = ?1
) ORDER BY r.id LIMIT ?2
"""

ALL_RUNS = "FROM runs r WHERE TRUE"
# for each function SQLite leaves the index at the first run that is too old for the page
RUNS_BY_FUNCTION = "FROM runs r INDEXED BY runs_by_function WHERE TRUE"
# the index is partial: its own condition has to stand in the statement
RUNS_OF_STATUS = "FROM runs r INDEXED BY runs_not_completed WHERE r.status > 2 AND r.status = ?"
RUNS_BY_EVENT_ID = "FROM runs r INDEXED BY runs_by_event WHERE r.event_id = ?"
RUNS_BY_EVENT_NAME = "FROM events e CROSS JOIN runs r INDEXED BY runs_by_event ON r.event_id = e.id WHERE e.name = ?"
RUNS_BY_PARENT = "FROM runs r INDEXED BY runs_by_parent WHERE r.parent_id = ?"
# the plus keeps the planner from the index by state, whose order is another
RUNS_OF_LETTERS = "FROM dead_letters d CROSS JOIN runs r ON r.id = d.run_id WHERE +d.state = 0"
# the index is in the order of runs only within one error
RUNS_OF_GROUP = (
    "FROM dead_letters d INDEXED BY dead_letters_by_state CROSS JOIN runs r ON r.id = d.run_id "
    "WHERE d.state = 0 AND d.fingerprint = ?"
)
LIVE_RUNS = "FROM queue q CROSS JOIN runs r ON r.id = q.run_id WHERE TRUE"

IDS = "SELECT {id} {source} ORDER BY {order} DESC LIMIT ?"
COUNT = "SELECT count(*) FROM (SELECT DISTINCT {id} {source} LIMIT ?)"
COUNT_UNIQUE = "SELECT count(*) FROM (SELECT 1 {source} LIMIT ?)"

HAS_EVENT_NAME = "EXISTS (SELECT 1 FROM events e WHERE e.id = r.event_id AND e.name = ?)"
IS_LETTER = "EXISTS (SELECT 1 FROM dead_letters d WHERE d.run_id = r.id AND d.state = 0)"
IN_GROUP = "EXISTS (SELECT 1 FROM dead_letters d WHERE d.run_id = r.id AND d.state = 0 AND d.fingerprint = ?)"
ERROR_CONTAINS = "instr(lower(r.error), lower(?)) > 0"

EVENTS_WITH_KEY = "SELECT id FROM events WHERE key = ? LIMIT 100"
COUNT_EVENTS_NAMED = "SELECT count(*) FROM (SELECT 1 FROM events WHERE name = ? LIMIT ?)"
FUNCTION_IDS = """
SELECT id FROM functions
WHERE (?1 IS NULL OR slug = ?1 OR slug = app || '-' || ?1) AND (?2 IS NULL OR app = ?2) ORDER BY id
"""

# -- one run ------------------------------------------------------------------------------------------------------

STEPS = """
SELECT key, name, kind, state, seq, started_at, ended_at, attempt, due, data, error, asked FROM steps WHERE run_id = ?
"""
ATTEMPTS = """
SELECT key, attempt, started_at, ended_at, retry_at, error, input FROM attempts WHERE run_id = ? ORDER BY key, attempt
"""
FINISHED_STEPS = """
SELECT key, name, kind, state, seq, started_at, ended_at, attempt FROM steps
WHERE run_id = ?1 AND state <> 2 AND seq > ?2 AND key <> '' ORDER BY seq LIMIT ?3
"""
PENDING = "SELECT key FROM steps WHERE run_id = ? AND state = ?"
FINAL_ERROR = "SELECT error FROM steps WHERE run_id = ? AND key = '' AND error IS NOT NULL"
LOGS = """
SELECT at, level, message, step FROM (SELECT * FROM logs WHERE run_id = ? ORDER BY seq DESC LIMIT ?) ORDER BY seq
"""
NOTES = "SELECT text FROM notes WHERE run_id = ? ORDER BY at, seq"
ITEM = """
SELECT id, state, due, lane, rank, attempt, crashes FROM queue WHERE id >= ?1 AND id < ?2
ORDER BY CASE state WHEN 2 THEN 0 WHEN 0 THEN 1 ELSE 2 END, due LIMIT 1
"""

# -- events -------------------------------------------------------------------------------------------------------

_EVENT = "SELECT id, key, name, ts, received_at, data, meta, source FROM events"
EVENT = f"{_EVENT} WHERE id = ?"
EVENTS_BY_ID = _EVENT + " WHERE id IN ({marks}) ORDER BY id DESC"
ALL_EVENTS = "FROM events WHERE TRUE"
EVENTS_NAMED = "FROM events INDEXED BY events_by_name WHERE name = ?"
EVENT_IDS = "SELECT id, length(data) {source} ORDER BY id DESC LIMIT ?"
NOT_INTERNAL = "name NOT LIKE 'inngest/%'"
# one seek for each name instead of a walk over all events
_NAMES = """
WITH RECURSIVE names (name) AS (
  SELECT min(name) FROM events
  UNION ALL
  SELECT (SELECT min(e.name) FROM events e WHERE e.name > names.name) FROM names WHERE names.name IS NOT NULL
)
"""
EVENT_NAMES = f"""{_NAMES}
SELECT name FROM names WHERE name IS NOT NULL ORDER BY name LIKE 'inngest/%', name LIMIT ?
"""
EVENTS_RECEIVED = f"""{_NAMES}
SELECT sum((SELECT count(*) FROM events e WHERE e.name = names.name AND e.id >= ?)) FROM names
WHERE name IS NOT NULL AND {NOT_INTERNAL}
"""
# a debounced event has its gather's moment and key as long as it waits
SKIPS = """
SELECT coalesce(f.slug, ''), s.reason, s.run_id, s.at, s.detail, g.due, g.key
FROM skips s LEFT JOIN functions f ON f.id = s.function_id
  LEFT JOIN gathers g INDEXED BY gathers_by_run ON s.reason = 'debounced' AND g.run_id = s.run_id
WHERE s.event_id = ? ORDER BY s.at, s.function_id
"""
MATCHED_WAITS = """
SELECT m.run_id, coalesce(f.slug, ''), m.key, m.at FROM matched_waits m
  LEFT JOIN runs r ON r.id = m.run_id LEFT JOIN functions f ON f.id = r.function_id
WHERE m.event_id = ? ORDER BY m.at, m.run_id, m.key LIMIT ?
"""

# -- functions, dead letters, schedules, waits, audit -------------------------------------------------------------

FUNCTIONS = """
SELECT id, app, slug, name, version, config, archived, paused, created_at FROM functions ORDER BY app, slug
"""
# tries of what failed in the end: of the step the final error names, else of the function itself
LETTERS = """
SELECT d.run_id, coalesce(f.slug, ''), coalesce(f.name, ''), coalesce(e.name, ''), d.at, d.fingerprint, d.error,
  d.state, d.redriven_as,
  (SELECT count(*) FROM attempts a WHERE a.run_id = d.run_id AND a.key = coalesce(
    (SELECT json_extract(CAST(s.error AS TEXT), '$.step') FROM steps s
     WHERE s.run_id = d.run_id AND s.key = '' AND json_valid(CAST(s.error AS TEXT))), ''))
FROM dead_letters d LEFT JOIN functions f ON f.id = d.function_id LEFT JOIN runs r ON r.id = d.run_id
  LEFT JOIN events e ON e.id = r.event_id
WHERE {where} ORDER BY d.run_id DESC LIMIT ?
"""
LETTER_GROUPS = """
SELECT g.fingerprint, d.error, g.sample, g.letters, g.first_at, g.last_at FROM (
  SELECT d.fingerprint, max(d.run_id) AS sample, count(*) AS letters, min(d.at) AS first_at, max(d.at) AS last_at
  FROM dead_letters d WHERE {where} GROUP BY d.fingerprint
) AS g JOIN dead_letters d ON d.run_id = g.sample ORDER BY g.letters DESC, g.last_at DESC LIMIT ?
"""
FUNCTIONS_OF_GROUPS = """
SELECT d.fingerprint, coalesce(f.slug, ''), coalesce(f.name, ''), count(*) AS letters
FROM dead_letters d LEFT JOIN functions f ON f.id = d.function_id WHERE {where}
GROUP BY d.fingerprint, d.function_id ORDER BY letters DESC
"""
LETTER_OF_FUNCTION = "d.function_id IN (SELECT id FROM functions WHERE slug = ? OR slug = app || '-' || ?)"
CRONS = """
SELECT f.slug, c.schedule, c.next_at, c.last_at, c.missed, f.paused
FROM crons c JOIN functions f ON f.id = c.function_id WHERE f.archived = 0 ORDER BY c.next_at, f.slug
"""
WAITS = """
SELECT w.run_id, coalesce(f.slug, ''), w.key, w.lookup, w.expression, w.expires, w.created_at
FROM waits w LEFT JOIN runs r ON r.id = w.run_id LEFT JOIN functions f ON f.id = r.function_id
WHERE substr(w.key, 1, 1) <> char(1) ORDER BY w.run_id DESC, w.key LIMIT ?
"""
_BULK = """
SELECT id, action, filter, actor, state, rate, total, done, skipped, failed, error, created_at, ended_at
FROM bulk_operations
"""
BULK = _BULK + "WHERE id = ?"
BULKS = _BULK + "ORDER BY id DESC LIMIT ?"
RUNNING_BULKS = _BULK + "WHERE state = 0 ORDER BY id DESC LIMIT ?"
AUDIT = "SELECT at, actor, action, target, detail, origin FROM audit ORDER BY id DESC LIMIT ?"

# -- figures ------------------------------------------------------------------------------------------------------

# an item that was never leased has epoch 0: its run hasn't started
QUEUE_FIGURES = """
SELECT count(*) FILTER (WHERE epoch = 0),
  count(*) FILTER (WHERE epoch > 0 AND state = 2),
  count(*) FILTER (WHERE epoch > 0 AND state <> 2),
  count(*) FILTER (WHERE state = 0),
  count(*) FILTER (WHERE state = 1),
  min(due) FILTER (WHERE state = 1),
  min(run_id) FILTER (WHERE state = 0 AND epoch = 0 AND due = 0),
  min(due) FILTER (WHERE state = 0 AND epoch = 0 AND due > 0),
  min(rank) FILTER (WHERE state = 0 AND epoch > 0)
FROM queue
"""
QUEUED_AT = "SELECT queued_at FROM runs WHERE id = ?"
LIVE_BY_FUNCTION = """
SELECT CAST(lane AS INTEGER), count(*), count(*) FILTER (WHERE run_id >= ?1) FROM queue WHERE lane <> ?2 GROUP BY 1
UNION ALL
SELECT r.function_id, count(*), count(*) FILTER (WHERE q.run_id >= ?1) FROM queue q CROSS JOIN runs r ON r.id = q.run_id
WHERE q.lane = ?2 GROUP BY 1
"""
SLICE = """
SELECT count(*) FILTER (WHERE status = 2), count(*) FILTER (WHERE status = 4), count(*) FROM runs
WHERE id >= ? AND id < ?
"""
FAILURES_BY_SLICE = "SELECT (at - ?1) / ?2, count(*) FROM dead_letters WHERE at >= ?1 GROUP BY 1"
FAILURES_BY_FUNCTION = """
SELECT function_id, count(*), error, max(at) FROM dead_letters WHERE at >= ? GROUP BY function_id
"""
LATEST_FAILURES = "SELECT run_id FROM dead_letters WHERE at >= ? ORDER BY at DESC, run_id DESC LIMIT ?"
DEAD = "SELECT count(*) FROM dead_letters INDEXED BY dead_letters_by_state WHERE state = 0"
ENDED_BY_FUNCTION = """
SELECT function_id, status, count(*) FROM runs INDEXED BY runs_not_completed WHERE status > 2 AND id >= ?
  AND status IN (3, 4, 5) GROUP BY function_id, status
"""
STARTED = "SELECT count(*) FROM runs INDEXED BY runs_by_function WHERE function_id = ? AND id >= ?"
LAST_RUN = "SELECT queued_at FROM runs INDEXED BY runs_by_function WHERE function_id = ? ORDER BY id DESC LIMIT 1"
PERCENTILES = """
WITH recent AS (
  SELECT ended_at - started_at AS ms FROM runs INDEXED BY runs_by_function
  WHERE function_id = ? AND id >= ? AND status = 2 AND started_at IS NOT NULL ORDER BY id DESC LIMIT ?
), ranked AS (SELECT ms, cume_dist() OVER (ORDER BY ms) AS share FROM recent)
SELECT min(ms) FILTER (WHERE share >= 0.5), min(ms) FILTER (WHERE share >= 0.95) FROM ranked
"""

# its lanes are the function's number, alone or followed by "/" and key values; a rank counts the run's priority in
BACKLOG = """
SELECT count(*), min(since) FROM (
  SELECT q.rank + r.priority * 1000 AS since FROM queue q INDEXED BY queue_ready JOIN runs r ON r.id = q.run_id
  WHERE q.state = 0 AND (q.lane = ? OR (q.lane >= ? AND q.lane < ?)) LIMIT ?
)
"""

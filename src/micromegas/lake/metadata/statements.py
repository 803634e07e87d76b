"""The hand-written SQL of the hot path: inserting blocks, and the sums kept on their processes and streams.

SQLAlchemy costs twice the time here (see the bench). Values are only ever bound, never formatted in.
"""

ADVANCE_COMMIT_CLOCK = """
UPDATE commit_clock SET last = CASE WHEN last >= :now THEN last + 1 ELSE :now END WHERE id = 1 RETURNING last
"""

INSERT_BLOCK_SQLITE = """
INSERT INTO blocks (block_id, stream_id, process_id, begin_time, begin_ticks, end_time, end_ticks, nb_objects,
                    object_offset, payload_size, object_key, payload_offset, min_event_time, max_event_time,
                    received, insert_time)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,
       CASE WHEN EXISTS (SELECT 1 FROM streams WHERE stream_id = ?2)
             AND EXISTS (SELECT 1 FROM processes WHERE process_id = ?3) THEN ?15 END
WHERE true
ON CONFLICT (block_id) DO NOTHING
"""

INSERT_BLOCKS_POSTGRES = """
INSERT INTO blocks (block_id, stream_id, process_id, begin_time, begin_ticks, end_time, end_ticks, nb_objects,
                    object_offset, payload_size, object_key, payload_offset, min_event_time, max_event_time,
                    received, insert_time)
SELECT b.block_id, b.stream_id, b.process_id, b.begin_time, b.begin_ticks, b.end_time, b.end_ticks, b.nb_objects,
       b.object_offset, b.payload_size, b.object_key, b.payload_offset, b.min_event_time, b.max_event_time,
       %(received)s::bigint,
       CASE WHEN s.stream_id IS NOT NULL AND p.process_id IS NOT NULL THEN %(received)s::bigint END
FROM unnest(%(block_id)s::text[]::uuid[], %(stream_id)s::text[]::uuid[], %(process_id)s::text[]::uuid[],
            %(begin_time)s::bigint[], %(begin_ticks)s::bigint[], %(end_time)s::bigint[], %(end_ticks)s::bigint[],
            %(nb_objects)s::integer[], %(object_offset)s::bigint[], %(payload_size)s::bigint[],
            %(object_key)s::text[], %(payload_offset)s::bigint[], %(min_event_time)s::bigint[],
            %(max_event_time)s::bigint[])
  AS b(block_id, stream_id, process_id, begin_time, begin_ticks, end_time, end_ticks, nb_objects, object_offset,
       payload_size, object_key, payload_offset, min_event_time, max_event_time)
LEFT JOIN streams s ON s.stream_id = b.stream_id
LEFT JOIN processes p ON p.process_id = b.process_id
ON CONFLICT (block_id) DO NOTHING
"""

KNOWN_BLOCKS_SQLITE = "SELECT block_id FROM blocks WHERE block_id IN (SELECT value FROM json_each(?))"

KNOWN_BLOCKS_POSTGRES = "SELECT block_id::text FROM blocks WHERE block_id = ANY(%(ids)s::text[]::uuid[])"

STREAM_FORMATS = (
    "SELECT stream_id, format FROM streams WHERE stream_id IN (SELECT value FROM json_each(?))",
    "SELECT stream_id::text, format FROM streams WHERE stream_id = ANY(%(ids)s::text[]::uuid[])",
)
"""For SQLite and for PostgreSQL, as the next."""

PROCESS_CLOCKS = (
    """
    SELECT process_id, start_time, tsc_frequency, last_block_end_ticks, clock
    FROM processes WHERE process_id IN (SELECT value FROM json_each(?))
    """,
    """
    SELECT process_id::text, start_time, tsc_frequency, last_block_end_ticks, clock::text
    FROM processes WHERE process_id = ANY(%(ids)s::text[]::uuid[])
    """,
)

# The blocks that a commit made visible are exactly those that carry its insert time.
UPDATE_PROCESSES = """
UPDATE processes
SET last_update_time = fresh.insert_time,
    last_block_end_ticks = CASE WHEN last_block_end_ticks IS NULL OR fresh.end_ticks > last_block_end_ticks
                                THEN fresh.end_ticks ELSE last_block_end_ticks END,
    last_block_end_time = CASE WHEN last_block_end_time IS NULL OR fresh.end_time > last_block_end_time
                               THEN fresh.end_time ELSE last_block_end_time END
FROM (SELECT process_id, insert_time, max(end_ticks) AS end_ticks, max(end_time) AS end_time
      FROM blocks
      WHERE insert_time = :insert_time
      GROUP BY process_id, insert_time) AS fresh
WHERE processes.process_id = fresh.process_id
"""

UPDATE_STREAMS = """
UPDATE streams
SET last_update_time = :insert_time
WHERE stream_id IN (SELECT stream_id FROM blocks WHERE insert_time = :insert_time)
"""

-- Three questions that join what a program logged, measured, and traced. `{process_id}` is a process, `{stream_id}`
-- the stream of one of its threads; `make demo` asks them, and prints them with the ids filled in.

-- 1. What did each kind of span cost the busiest thread, and what was logged and measured while it ran?
WITH spans AS (
    SELECT id, name, begin, "end", duration
    FROM view_instance('thread_spans', '{stream_id}')
    WHERE depth > 0
),
logged AS (
    SELECT spans.id, count(*) AS lines
    FROM spans
    JOIN view_instance('log_entries', '{process_id}') AS log ON log.time BETWEEN spans.begin AND spans."end"
    GROUP BY spans.id
),
measured AS (
    SELECT spans.id, count(*) AS samples
    FROM spans
    JOIN view_instance('measures', '{process_id}') AS measure ON measure.time BETWEEN spans.begin AND spans."end"
    GROUP BY spans.id
)
SELECT
    spans.name AS span,
    count(*) AS calls,
    round(sum(spans.duration) / 1e6, 3) AS total_ms,
    round(approx_percentile_cont(spans.duration, 0.95) / 1e6, 3) AS p95_ms,
    coalesce(sum(logged.lines), 0) AS log_lines,
    coalesce(sum(measured.samples), 0) AS measures
FROM spans
LEFT JOIN logged ON logged.id = spans.id
LEFT JOIN measured ON measured.id = spans.id
GROUP BY spans.name
ORDER BY total_ms DESC
LIMIT 10;

-- 2. What was that thread doing when each warning or error came, and what was measured last before it?
WITH troubles AS (
    SELECT row_number() OVER (ORDER BY time) AS number, time, level, msg
    FROM view_instance('log_entries', '{process_id}')
    WHERE level <= 3
    ORDER BY time
    LIMIT 10
),
around AS (
    SELECT troubles.number, last_value(spans.name ORDER BY spans.depth) AS innermost
    FROM troubles
    JOIN view_instance('thread_spans', '{stream_id}') AS spans ON troubles.time BETWEEN spans.begin AND spans."end"
    GROUP BY troubles.number
),
before AS (
    SELECT
        troubles.number,
        last_value(measure.name ORDER BY measure.time) AS name,
        last_value(measure.value ORDER BY measure.time) AS value,
        last_value(measure.unit ORDER BY measure.time) AS unit
    FROM troubles
    JOIN view_instance('measures', '{process_id}') AS measure
        ON measure.time BETWEEN troubles.time - INTERVAL '1 second' AND troubles.time
    GROUP BY troubles.number
)
SELECT
    troubles.time,
    CASE troubles.level WHEN 1 THEN 'fatal' WHEN 2 THEN 'error' ELSE 'warning' END AS level,
    troubles.msg,
    around.innermost AS in_span,
    before.name || ' = ' || round(before.value, 3) || ' ' || before.unit AS measured_before
FROM troubles
LEFT JOIN around ON around.number = troubles.number
LEFT JOIN before ON before.number = troubles.number
ORDER BY troubles.number;

-- 3. What happened during its five slowest spans: worst level logged, first line, largest value measured?
WITH slowest AS (
    SELECT id, name, begin, "end", duration
    FROM view_instance('thread_spans', '{stream_id}')
    WHERE depth > 0
    ORDER BY duration DESC
    LIMIT 5
),
logged AS (
    SELECT slowest.id, count(*) AS lines, min(log.level) AS worst, first_value(log.msg ORDER BY log.time) AS first_line
    FROM slowest
    JOIN view_instance('log_entries', '{process_id}') AS log ON log.time BETWEEN slowest.begin AND slowest."end"
    GROUP BY slowest.id
),
measured AS (
    SELECT slowest.id, max(measure.value) AS largest, last_value(measure.name ORDER BY measure.value) AS largest_name
    FROM slowest
    JOIN view_instance('measures', '{process_id}') AS measure ON measure.time BETWEEN slowest.begin AND slowest."end"
    GROUP BY slowest.id
)
SELECT
    slowest.name AS span,
    slowest.begin,
    round(slowest.duration / 1e6, 3) AS ms,
    coalesce(logged.lines, 0) AS log_lines,
    logged.worst AS worst_level,
    logged.first_line,
    measured.largest_name || ' = ' || round(measured.largest, 3) AS largest_measure
FROM slowest
LEFT JOIN logged ON logged.id = slowest.id
LEFT JOIN measured ON measured.id = slowest.id
ORDER BY slowest.duration DESC;

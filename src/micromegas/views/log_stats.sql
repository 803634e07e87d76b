-- How many lines a process logs; a few rows a minute where log_entries has thousands.

-- @view log_stats
-- @row a minute in which a process logged lines of one level and target
-- @time time_bin
-- @transform
SELECT date_bin(INTERVAL '1 minute', time) AS time_bin, process_id, level, target, count(*) AS count
FROM log_entries
-- The first minute of which 64 bits can tell the begin: earlier times have no bin. They come of broken clocks.
WHERE time >= TIMESTAMP '1677-09-21T00:13:00Z'
GROUP BY 1, 2, 3, 4
-- @merge
SELECT time_bin, process_id, level, target, sum(count) AS count
FROM parts
GROUP BY 1, 2, 3, 4

-- How many lines a process logs; a few rows a minute where log_entries has thousands.

-- @view log_stats
-- @row a minute in which a process logged lines of one level and target
-- @time time_bin
-- @transform
SELECT date_bin(INTERVAL '1 minute', time) AS time_bin, process_id, level, target, count(*) AS count
FROM log_entries
GROUP BY 1, 2, 3, 4
-- @merge
SELECT time_bin, process_id, level, target, sum(count) AS count
FROM parts
GROUP BY 1, 2, 3, 4

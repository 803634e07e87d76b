-- @view slow_frames
-- @row an hour of a program's frames, and how many of them took longer than 33 ms
-- @time hour
-- @transform
SELECT date_trunc('hour', time) AS hour, exe, count(*) AS frames,
       count(*) FILTER (WHERE value > 33) AS slow, max(value) AS slowest
FROM measures
WHERE name = 'frame_time'
GROUP BY 1, 2
-- @merge
SELECT hour, exe, sum(frames) AS frames, sum(slow) AS slow, max(slowest) AS slowest
FROM parts
GROUP BY 1, 2

-- @view programs_per_day
-- @row a day on which a program sent something
-- @time first_time, last_time
-- @transform
SELECT "processes.exe" AS exe, date_trunc('day', begin_time) AS day,
       min(begin_time) AS first_time, max(end_time) AS last_time, sum(payload_size) AS bytes
FROM blocks
GROUP BY 1, 2
-- @merge
SELECT exe, day, min(first_time) AS first_time, max(last_time) AS last_time, sum(bytes) AS bytes
FROM parts
GROUP BY 1, 2

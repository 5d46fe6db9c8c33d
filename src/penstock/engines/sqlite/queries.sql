-- Every statement of the engine, by name. `json_each(?)` takes a JSON array of numbers or text. What is needed twice is
-- named, because Python takes no numbered parameters from 3.14 on.

-- name: inode
SELECT inode FROM meta

-- name: first_meta
INSERT OR IGNORE INTO meta (only_row, epoch, created_ms, inode) VALUES (1, ?, ?, ?)

-- name: first_numbers
INSERT OR IGNORE INTO counters (lane, what, count) VALUES (0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 3, 0)

-- name: begin_epoch
UPDATE meta SET epoch = ?, inode = ?

-- name: void_all
UPDATE processes SET void = 1

-- name: write_nothing
-- Takes the write lock, and changes nothing.
UPDATE meta SET epoch = epoch WHERE 0

-- name: numbers
SELECT count FROM counters WHERE lane = 0 ORDER BY what

-- name: count
UPDATE counters SET count = count + ? WHERE lane = ? AND what = ?

-- name: first_count
INSERT INTO counters (lane, what, count) VALUES (?, ?, 0)

-- name: lane_of
SELECT lane FROM lanes WHERE queue = ? AND task = ? AND fair_key = ? AND alone = ?

-- name: lane_key
SELECT queue, task, fair_key, alone FROM lanes WHERE lane = ?

-- name: add_lane
INSERT INTO lanes (queue, task, fair_key, alone) VALUES (?, ?, ?, ?)

-- name: is_empty_lane
SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM counters WHERE lane = ? AND what < 8 AND count <> 0)

-- name: unsample_lane
-- What ended in a lane that is forgotten no longer counts, also not in what its queue's rate is measured from.
UPDATE queues SET sampled_finished = sampled_finished - (SELECT count FROM counters WHERE lane = :lane AND what = 8)
WHERE queue = (SELECT queue FROM lanes WHERE lane = :lane)

-- name: drop_counts
DELETE FROM counters WHERE lane = ?

-- name: drop_lane
DELETE FROM lanes WHERE lane = ?

-- name: forget_queue
DELETE FROM queues WHERE queue = :queue AND NOT paused AND max_jobs IS NULL
    AND NOT EXISTS (SELECT 1 FROM lanes WHERE queue = :queue)

-- name: policy_of
SELECT policy FROM policies WHERE body = ?

-- name: policy_body
SELECT body FROM policies WHERE policy = ?

-- name: add_policy
INSERT INTO policies (body) VALUES (?)

-- Adding ---------------------------------------------------------------------------------------------------------------

-- name: known_ids
SELECT id, lane, envelope, stage, details FROM jobs WHERE id IN (SELECT value FROM json_each(:ids))
UNION ALL SELECT id, lane, envelope, stage, details FROM ended WHERE id IN (SELECT value FROM json_each(:ids))

-- name: known_id
SELECT id, lane, envelope, stage, details FROM jobs WHERE id = :id
UNION ALL SELECT id, lane, envelope, stage, details FROM ended WHERE id = :id

-- name: add_job
INSERT INTO jobs (id, lane, rank, seq, policy, crc, created_ms, due_ms, expires_ms, details, envelope)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: add_ready
INSERT INTO ready (lane, rank, seq, id, since_ms) VALUES (?, ?, ?, ?, ?)

-- name: bounded_queue
SELECT max_jobs, rate FROM queues WHERE queue = ? AND max_jobs IS NOT NULL

-- name: unfinished
SELECT total(count) FROM lanes CROSS JOIN counters USING (lane) WHERE queue = ? AND what <= 3

-- name: key_holder
SELECT id FROM keys WHERE key = ?

-- name: add_key
INSERT OR REPLACE INTO keys (key, id) VALUES (?, ?)

-- name: unique_holder
SELECT id FROM uniques WHERE key = ? AND (free_ms IS NULL OR free_ms > ?)

-- name: hold_unique
INSERT OR REPLACE INTO uniques (key, id, free_ms) VALUES (?, ?, ?)

-- name: free_unique
DELETE FROM uniques WHERE key = ? AND id = ? AND free_ms IS NULL

-- name: free_unknown_unique
-- Of a job whose key can no longer be read; reads all keys.
DELETE FROM uniques WHERE id = ? AND free_ms IS NULL

-- name: live_claim
SELECT 1 FROM claims WHERE token = ? AND number = ? AND id = ?

-- Loading --------------------------------------------------------------------------------------------------------------

-- name: stored_ids
SELECT id FROM jobs WHERE id IN (SELECT value FROM json_each(:ids))
UNION ALL SELECT id FROM ended WHERE id IN (SELECT value FROM json_each(:ids))

-- name: load_waiting
INSERT INTO jobs (id, lane, rank, policy, crc, created_ms, expires_ms, details, envelope, claims, stage, counters,
    claimed_ms, ran_us, process, progress, history, seq, due_ms, cancel, started, forgiven)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: load_ended
INSERT INTO ended (id, lane, rank, policy, crc, created_ms, expires_ms, details, envelope, claims, stage, counters,
    claimed_ms, ran_us, process, progress, history, ended, state, ended_ms, forget_ms, forgiven, degraded, result)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: skip_in_rate
UPDATE queues SET sampled_finished = sampled_finished + ? WHERE queue = ?

-- Exchange -------------------------------------------------------------------------------------------------------------

-- name: process
SELECT p.process, p.beat, p.late, p.mark, p.cancels, w.drain, p.steer FROM processes p JOIN workers w ON w.worker = p.worker
WHERE p.id = ? AND p.void = 0

-- name: set_beat
UPDATE processes SET beat = ?, late = ?, mark = ?, steer = 0, cancels = ? WHERE process = ?

-- name: steered_once
UPDATE processes SET steer = 0 WHERE process = ?

-- name: held_by_tokens
-- The claims that changes speak of, with what is needed to end or requeue their jobs.
SELECT c.token, c.number, c.id, c.lane, c.rank, c.policy, c.claimed_ms, p.id, c.keyed
FROM claims c JOIN processes p ON p.process = c.process
WHERE c.token IN (SELECT value FROM json_each(?))

-- name: drop_claims
DELETE FROM claims WHERE token IN (SELECT value FROM json_each(?))

-- name: requeue
UPDATE jobs SET lane = ?, seq = ?, due_ms = ?, claims = ?, started = ?, counters = ?, claimed_ms = ?, ran_us = ?, process = ?,
    history = coalesce(?, history), forgiven = forgiven AND ? WHERE id = ?

-- name: move
-- A job that goes on at another stage has started, so its deadline is over.
UPDATE jobs SET expires_ms = CASE WHEN stage = :stage THEN expires_ms END, stage = :stage, details = :details WHERE id = :id

-- name: history
SELECT history FROM jobs WHERE id = ?

-- name: details
SELECT details FROM jobs WHERE id = ?

-- name: end_claimed
INSERT INTO ended (ended, id, state, lane, rank, policy, crc, created_ms, ended_ms, forget_ms, expires_ms, claims, stage,
    counters, claimed_ms, ran_us, process, degraded, details, progress, history, forgiven, result, envelope)
SELECT ?, id, ?, lane, rank, policy, crc, created_ms, ?, ?, expires_ms, ?, stage,
    ?, ?, ?, ?, ?, details, progress, coalesce(?, history), forgiven AND ?, ?, envelope
FROM jobs WHERE id = ?

-- name: end_waiting
INSERT INTO ended (ended, id, state, lane, rank, policy, crc, created_ms, ended_ms, forget_ms, expires_ms, claims, stage,
    counters, claimed_ms, ran_us, process, degraded, details, progress, history, forgiven, result, envelope)
SELECT ?, id, ?, lane, rank, policy, crc, created_ms, ?, ?, expires_ms, claims, stage,
    counters, claimed_ms, ran_us, process, NULL, details, progress, ?, forgiven AND ?, NULL, envelope
FROM jobs WHERE id = ?

-- name: drop_jobs
DELETE FROM jobs WHERE id IN (SELECT value FROM json_each(?))

-- name: drop_ready
DELETE FROM ready WHERE lane = ? AND rank = ? AND seq = ?

-- name: drop_ready_run
-- What a claim takes of a lane is always its head, so one range goes.
DELETE FROM ready WHERE lane = ? AND (rank, seq) <= (?, ?)

-- name: ready_lanes
-- One search for each lane that has ready jobs; lanes without any cost nothing.
WITH RECURSIVE open (lane) AS (
    SELECT min(lane) FROM ready
    UNION ALL
    SELECT (SELECT min(r.lane) FROM ready r WHERE r.lane > open.lane) FROM open WHERE lane IS NOT NULL
)
SELECT lane, queue, task, fair_key, alone FROM open CROSS JOIN lanes USING (lane)
WHERE queue NOT IN (SELECT queue FROM queues WHERE paused)

-- name: head
SELECT r.rank, r.seq, r.lane, j.id, j.claims, j.policy, j.crc, j.created_ms, j.expires_ms, j.details, j.counters,
    j.stage, j.cancel, j.started, j.envelope
FROM ready r CROSS JOIN jobs j ON j.id = r.id WHERE r.lane = ? ORDER BY r.rank, r.seq

-- name: add_claim
INSERT INTO claims (token, id, number, process, beat, claimed_ms, lane, rank, policy, keyed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: cancels
SELECT c.token, c.number FROM claims c JOIN jobs j ON j.id = c.id WHERE c.process = ? AND j.cancel

-- name: held_since
-- The claims a process took with one beat, for an answer that was lost.
SELECT j.rank, j.seq, j.lane, j.id, c.number - 1, j.policy, j.crc, j.created_ms, j.expires_ms, j.details, j.counters,
    j.stage, j.cancel, j.started, j.envelope, c.token
FROM claims c CROSS JOIN jobs j ON j.id = c.id WHERE c.process = ? AND c.beat = ? AND c.fate IS NULL

-- Leases ---------------------------------------------------------------------------------------------------------------

-- name: enrol_worker
INSERT INTO workers (worker, info, enrolled_ms) VALUES (?, ?, ?) ON CONFLICT (worker) DO UPDATE SET info = excluded.info

-- name: enrol_process
INSERT INTO processes (id, worker, lease_ms, until_steady_ms, boot) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET worker = excluded.worker, lease_ms = excluded.lease_ms,
    until_steady_ms = excluded.until_steady_ms, boot = excluded.boot

-- name: void_among
SELECT id FROM processes WHERE void AND id IN (SELECT value FROM json_each(?))

-- name: renew
UPDATE processes SET until_steady_ms = ? + lease_ms, boot = ? WHERE void = 0 AND id IN (SELECT value FROM json_each(?))

-- name: leases
SELECT p.id, w.drain FROM processes p JOIN workers w ON w.worker = p.worker
WHERE p.void = 0 AND p.id IN (SELECT value FROM json_each(?))

-- name: void_lapsed
UPDATE processes SET void = 1 WHERE void = 0 AND (until_steady_ms <= ? OR boot <> ?)

-- name: next_lapse
-- Until when the first lease of another process holds; one of another boot no longer does.
SELECT min(CASE WHEN boot = ? THEN until_steady_ms ELSE 0 END) FROM processes WHERE void = 0 AND id <> ?

-- name: void
SELECT process, id FROM processes WHERE void ORDER BY process

-- name: live_lease
SELECT process FROM processes WHERE id = ? AND void = 0 AND until_steady_ms > ? AND boot = ?

-- name: lease_row
SELECT process FROM processes WHERE id = ? AND void = 0

-- name: process_row
SELECT process FROM processes WHERE id = ?

-- name: held_by_process
SELECT j.rank, j.seq, j.lane, j.id, c.number, j.policy, j.crc, j.created_ms, j.expires_ms, j.details, j.counters,
    j.stage, j.cancel, j.started, j.envelope, c.token, c.fate
FROM claims c CROSS JOIN jobs j ON j.id = c.id WHERE c.process = ? ORDER BY j.id LIMIT ?

-- name: take_over
UPDATE claims SET token = ?, number = ?, process = ?, beat = 0, fate = ? WHERE token = ?

-- name: drop_process
DELETE FROM processes WHERE process = ?

-- name: holds_claims
SELECT 1 FROM claims WHERE process = ? LIMIT 1

-- name: forget_workers
DELETE FROM workers WHERE worker NOT IN (SELECT worker FROM processes)

-- Time -----------------------------------------------------------------------------------------------------------------

-- name: due
SELECT id, lane, rank FROM jobs WHERE due_ms <= ? ORDER BY due_ms, id LIMIT ?

-- name: make_due
UPDATE jobs SET due_ms = NULL, seq = ? WHERE id = ?

-- name: overdue
-- Unstarted waiting jobs past their deadline; the running ones among them are kept out.
SELECT j.id, j.lane, j.rank, j.seq, j.due_ms, j.policy, j.details, j.history FROM jobs j
WHERE j.expires_ms <= ? AND j.started = 0 AND (j.due_ms IS NOT NULL
    OR EXISTS (SELECT 1 FROM ready r WHERE r.lane = j.lane AND r.rank = j.rank AND r.seq = j.seq))
ORDER BY j.expires_ms, j.id LIMIT ?

-- name: next_due
SELECT min(due_ms) FROM jobs WHERE due_ms IS NOT NULL

-- name: next_expiry
SELECT min(j.expires_ms) FROM jobs j WHERE j.expires_ms IS NOT NULL AND j.started = 0 AND (j.due_ms IS NOT NULL
    OR EXISTS (SELECT 1 FROM ready r WHERE r.lane = j.lane AND r.rank = j.rank AND r.seq = j.seq))

-- name: forgettable
SELECT ended, id, lane, state, details FROM ended WHERE forget_ms <= ? ORDER BY forget_ms, ended LIMIT ?

-- name: kept
SELECT queue, total(count) FROM counters CROSS JOIN lanes USING (lane) WHERE what BETWEEN 4 AND 6 GROUP BY queue

-- name: oldest_ended
SELECT ended, id, lane, state, details FROM ended
WHERE ended > ? AND forget_ms IS NOT NULL AND lane IN (SELECT lane FROM lanes WHERE queue = ?) ORDER BY ended LIMIT ?

-- name: swept
SELECT swept FROM queues WHERE queue = ?

-- name: set_swept
INSERT INTO queues (queue, swept) VALUES (?, ?) ON CONFLICT (queue) DO UPDATE SET swept = excluded.swept

-- name: drop_ended
DELETE FROM ended WHERE ended IN (SELECT value FROM json_each(?))

-- name: drop_logs
DELETE FROM logs WHERE id IN (SELECT value FROM json_each(?))

-- name: drop_keys
DELETE FROM keys WHERE key = ? AND id = ?

-- name: drop_unknown_keys
-- Of a job whose key can no longer be read; reads all keys.
DELETE FROM keys WHERE id = ?

-- name: free_windows
DELETE FROM uniques WHERE key IN (SELECT key FROM uniques WHERE free_ms <= ? LIMIT ?)

-- name: forget_ledger
DELETE FROM ledger WHERE (scope, key) IN (SELECT scope, key FROM ledger WHERE until_ms <= ? LIMIT ?)

-- name: drop_ledger
DELETE FROM ledger WHERE until_ms IS NULL AND id IN (SELECT value FROM json_each(?))

-- name: samples
SELECT l.queue, total(c.count), q.sampled_ms, q.sampled_finished, q.rate
FROM lanes l LEFT JOIN counters c ON c.lane = l.lane AND c.what = 8 LEFT JOIN queues q ON q.queue = l.queue
GROUP BY l.queue

-- name: sample
INSERT INTO queues (queue, sampled_ms, sampled_finished) VALUES (?, ?, ?)
ON CONFLICT (queue) DO UPDATE SET sampled_ms = excluded.sampled_ms, sampled_finished = excluded.sampled_finished

-- name: set_rate
UPDATE queues SET rate = ? WHERE queue = ?

-- Looking --------------------------------------------------------------------------------------------------------------

-- name: hot_columns
j.id, j.lane, j.rank, j.seq, j.policy, j.crc, j.created_ms, j.due_ms, j.expires_ms, j.details, j.claims, j.stage,
j.cancel, j.counters, j.claimed_ms, j.ran_us, j.process, j.progress, j.history, j.forgiven, j.envelope,
EXISTS (SELECT 1 FROM ready r WHERE r.lane = j.lane AND r.rank = j.rank AND r.seq = j.seq)

-- name: cold_columns
j.id, j.state, j.lane, j.rank, j.policy, j.crc, j.created_ms, j.ended_ms, j.expires_ms, j.details, j.claims, j.stage,
j.counters, j.claimed_ms, j.ran_us, j.process, j.progress, j.history, j.forgiven, j.envelope, j.result, j.degraded

-- name: running
SELECT c.id, c.number, c.claimed_ms, p.id FROM claims c JOIN processes p ON p.process = c.process
WHERE c.id IN (SELECT value FROM json_each(?))

-- name: state_of
SELECT state FROM ended WHERE id = ?

-- name: counts
SELECT queue, task, what, sum(count) FROM counters CROSS JOIN lanes USING (lane) WHERE what < 8
GROUP BY queue, task, what HAVING sum(count) <> 0 ORDER BY queue, task, what

-- name: groups
-- Answered by the index alone.
SELECT grp, count(*), min(ended_ms), max(ended_ms), max(id) FROM ended INDEXED BY ended_groups
WHERE forget_ms IS NULL AND grp IS NOT NULL GROUP BY grp ORDER BY grp

-- name: lanes_where
SELECT lane FROM lanes WHERE (:queue IS NULL OR queue = :queue) AND (:task IS NULL OR task = :task)

-- name: queues
SELECT name, coalesce(q.paused, 0), q.max_jobs, coalesce(q.rate, 0),
    (SELECT total(count) FROM lanes l CROSS JOIN counters USING (lane) WHERE l.queue = name AND what <= 3)
FROM (
    SELECT queue AS name FROM lanes l WHERE EXISTS (SELECT 1 FROM counters c WHERE c.lane = l.lane AND what < 8 AND count <> 0)
    UNION SELECT queue FROM queues WHERE paused OR max_jobs IS NOT NULL
) LEFT JOIN queues q ON q.queue = name ORDER BY name

-- name: oldest_ready
-- Within a lane and rank the order of seq is the order of time, so one head for each of them tells.
WITH RECURSIVE heads (lane, rank) AS (
    SELECT lane, (SELECT min(rank) FROM ready r WHERE r.lane = l.lane) FROM lanes l WHERE queue = ?
    UNION ALL
    SELECT lane, (SELECT min(rank) FROM ready r WHERE r.lane = heads.lane AND r.rank > heads.rank) FROM heads
    WHERE rank IS NOT NULL
)
SELECT min((SELECT since_ms FROM ready r WHERE r.lane = heads.lane AND r.rank = heads.rank ORDER BY seq LIMIT 1))
FROM heads WHERE rank IS NOT NULL

-- name: workers
SELECT w.worker, w.info, w.drain, w.enrolled_ms, p.id, p.until_steady_ms, p.boot,
    (SELECT count(*) FROM claims c WHERE c.process = p.process)
FROM workers w JOIN processes p ON p.worker = w.worker WHERE p.void = 0 ORDER BY w.worker, p.id

-- name: describe
SELECT epoch, (SELECT count FROM counters WHERE lane = 0 AND what = 2) FROM meta

-- name: logs
SELECT attempt, body FROM logs WHERE id = ? ORDER BY attempt

-- name: seq
SELECT count FROM counters WHERE lane = 0 AND what = 0

-- name: steered
SELECT steer OR void FROM processes WHERE id = ?

-- name: not_unfinished
SELECT 1 FROM json_each(?) WHERE value NOT IN (SELECT id FROM jobs WHERE id = value) LIMIT 1

-- Steering -------------------------------------------------------------------------------------------------------------

-- name: hot_row
SELECT j.id, j.lane, j.rank, j.seq, j.due_ms, j.policy, j.details, j.history, j.counters, j.envelope, j.crc, j.stage,
    EXISTS (SELECT 1 FROM ready r WHERE r.lane = j.lane AND r.rank = j.rank AND r.seq = j.seq)
FROM jobs j WHERE j.id = ?

-- name: cold_row
SELECT ended, id, lane, state, details, counters, envelope, crc, rank, expires_ms, stage, policy FROM ended WHERE id = ?

-- name: ask_cancel
UPDATE jobs SET cancel = 1 WHERE id = ?

-- name: has_cancels
UPDATE processes SET cancels = 1 WHERE process = ?

-- name: steer_holder
UPDATE processes SET steer = 1, cancels = 1 WHERE process IN (SELECT process FROM claims WHERE id = ?)

-- name: revive
-- An ended job becomes an unfinished one: named parameters are what changes.
INSERT INTO jobs (id, lane, rank, seq, due_ms, policy, crc, created_ms, expires_ms, details, envelope, claims, stage,
    counters, claimed_ms, ran_us, process, progress, history, forgiven)
SELECT id, :lane, :rank, :seq, :due_ms, policy, :crc, created_ms, :expires_ms, :details, :envelope, claims, :stage, :counters,
    claimed_ms, ran_us, process, progress, history, 1 FROM ended WHERE ended = :ended

-- name: kick_scheduled
UPDATE jobs SET lane = ?, seq = ?, due_ms = ?, started = 0, cancel = 0, counters = ?, forgiven = 1,
    expires_ms = CASE WHEN expires_ms <= ? THEN NULL ELSE expires_ms END WHERE id = ?

-- name: edit
UPDATE jobs SET lane = ?, rank = ?, seq = ?, crc = ?, details = ?, envelope = ? WHERE id = ?

-- name: reschedule
UPDATE jobs SET due_ms = ? WHERE id = ?

-- name: add_queue
INSERT OR IGNORE INTO queues (queue) VALUES (?)

-- name: set_paused
UPDATE queues SET paused = ? WHERE queue = ?

-- name: is_paused
SELECT paused FROM queues WHERE queue = ?

-- name: set_max_jobs
UPDATE queues SET max_jobs = ? WHERE queue = ?

-- name: count_bounds
UPDATE counters SET count = (SELECT count(*) FROM queues WHERE max_jobs IS NOT NULL) WHERE lane = 0 AND what = 3

-- name: drain_worker
UPDATE workers SET drain = 1
WHERE worker = :worker AND EXISTS (SELECT 1 FROM processes WHERE worker = :worker AND void = 0)

-- name: steer_worker
UPDATE processes SET steer = 1 WHERE worker = ?

-- name: void_workers
UPDATE processes SET void = 1 WHERE void = 0 AND worker IN (SELECT value FROM json_each(?)) RETURNING process, worker

-- name: noted
SELECT number FROM claims WHERE token = ? AND id = ?

-- name: set_progress
UPDATE jobs SET progress = ? WHERE id = ?

-- name: log_body
SELECT body FROM logs WHERE id = ? AND attempt = ?

-- name: set_log
INSERT OR REPLACE INTO logs (id, attempt, body) VALUES (?, ?, ?)

-- name: drop_old_logs
DELETE FROM logs WHERE id = ? AND attempt <= ?

-- name: ledger_entry
SELECT id, number, token, value, until_ms FROM ledger WHERE scope = ? AND key = ?

-- name: set_entry
INSERT OR REPLACE INTO ledger (scope, key, id, number, token, value, until_ms) VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: take_back_entry
DELETE FROM ledger WHERE scope = ? AND key = ? AND id = ? AND value IS NULL

-- name: drop_entry
DELETE FROM ledger WHERE scope = ? AND key = ?

-- name: shared
SELECT key, value FROM shared WHERE kind = ?

-- name: shared_value
SELECT value FROM shared WHERE kind = ? AND key = ?

-- name: set_shared
INSERT OR REPLACE INTO shared (kind, key, value) VALUES (?, ?, ?)

-- name: drop_shared
DELETE FROM shared WHERE kind = ? AND key = ?

-- Every other statement of the engine, by name. `penstock.` stands for the schema that `?schema=` names.

-- name: limit_waits
SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true),
    set_config('idle_in_transaction_session_timeout', %s, true)

-- name: started
SELECT pg_postmaster_start_time()::text, pg_backend_pid()

-- name: commit_surely
-- What engines remember must outlive a crash of the server.
SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'

-- name: now_ms
SELECT coalesce(%s::bigint, penstock.now_ms())

-- Catalogue ------------------------------------------------------------------------------------------------------------

-- name: make_lines
INSERT INTO penstock.lines (queue, task, fair_key, alone, rank)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::boolean[], %s::integer[]) AS g(queue, task, fair_key, alone, rank)
ORDER BY queue, task, fair_key, alone, rank ON CONFLICT DO NOTHING

-- name: find_lines
SELECT l.line FROM unnest(%s::text[], %s::text[], %s::text[], %s::boolean[], %s::integer[])
    WITH ORDINALITY AS g(queue, task, fair_key, alone, rank, place)
JOIN penstock.lines l ON l.queue = g.queue AND md5(l.task) = md5(g.task) AND md5(l.fair_key) = md5(g.fair_key)
    AND l.alone = g.alone AND l.rank = g.rank AND l.draft IS NULL
ORDER BY g.place

-- name: line_keys
SELECT line, queue, task, fair_key, alone, rank::integer FROM penstock.lines WHERE line = ANY (%s::integer[])

-- name: make_policy
INSERT INTO penstock.policies (keep_ms, body) VALUES (%s, %s) ON CONFLICT DO NOTHING

-- name: policy_of
SELECT policy FROM penstock.policies WHERE md5(body) = md5(%s::bytea)

-- name: policy_bodies
SELECT policy, body FROM penstock.policies WHERE policy = ANY (%s::integer[])

-- Verbs of the server --------------------------------------------------------------------------------------------------

-- name: add
SELECT penstock.add(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)

-- name: add_one
SELECT penstock.add_one(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)

-- name: add_each
SELECT * FROM penstock.add_each(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)

-- name: exchange
SELECT * FROM penstock.exchange(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,
    %s, %s, %s, %s, %s)

-- name: receive
SELECT CASE WHEN EXISTS (SELECT FROM penstock.arrivals) THEN penstock.receive(1000, coalesce(%s, penstock.now_ms())) END

-- name: line_up
SELECT penstock.line_up(%s, %s)

-- name: end_waiting
SELECT penstock.end_waiting(%s, %s, %s, %s)

-- name: forget
SELECT penstock.forget(%s)

-- name: fold
SELECT penstock.fold(), penstock.sweep_arrivals()

-- name: ring
SELECT penstock.ring(%s)

-- name: mark
SELECT penstock.mark()

-- Leases ---------------------------------------------------------------------------------------------------------------

-- name: void_among
SELECT id FROM penstock.processes WHERE void AND id = ANY (%s) ORDER BY id LIMIT 1

-- name: enrol_worker
INSERT INTO penstock.workers (worker, info, enrolled_ms) VALUES (%s, %s, %s)
ON CONFLICT (worker) DO UPDATE SET info = excluded.info

-- name: enrol_process
INSERT INTO penstock.processes AS p (id, worker, lease_ms) VALUES (%s, %s, %s)
ON CONFLICT (id) DO UPDATE SET worker = excluded.worker, lease_ms = excluded.lease_ms
RETURNING process, void

-- name: give_lease
INSERT INTO penstock.leases (process, until_ms, boot) VALUES (%s, %s, %s)
ON CONFLICT (process) DO UPDATE SET until_ms = excluded.until_ms, boot = excluded.boot

-- name: epoch
SELECT epoch FROM penstock.meta

-- name: hold_process
SELECT penstock.hold_process(%s)

-- name: lease_row
SELECT process FROM penstock.processes WHERE id = %s AND NOT void

-- name: renew
UPDATE penstock.leases l SET until_ms = %s::bigint + p.lease_ms, boot = %s
FROM penstock.processes p WHERE l.process = p.process AND NOT p.void AND p.id = ANY (%s)

-- name: renew_alive
SELECT process_id, drains FROM penstock.renew(%s, %s, %s, %s, %s)

-- name: leases
SELECT p.id, w.drain FROM penstock.processes p JOIN penstock.workers w ON w.worker = p.worker
WHERE NOT p.void AND p.id = ANY (%s)

-- name: processes_of
SELECT id, worker FROM penstock.processes WHERE NOT void AND worker = ANY (%s) ORDER BY id

-- name: void_process
UPDATE penstock.processes SET void = true WHERE id = %s RETURNING process, id

-- name: void_lapsed
-- Whoever exchanges at this moment is left for the next time.
WITH lapsed AS MATERIALIZED (
    SELECT p.process, p.id FROM penstock.processes p JOIN penstock.leases l ON l.process = p.process
    WHERE NOT p.void AND (l.until_ms <= %s OR l.boot <> %s)
)
UPDATE penstock.processes SET void = true WHERE process IN (
    SELECT process FROM lapsed WHERE pg_try_advisory_xact_lock(hashtextextended(id, penstock.place())))

-- name: next_lapse
-- Until when the first lease of another process holds; one of another boot no longer does.
SELECT min(CASE WHEN l.boot = %s THEN l.until_ms ELSE 0 END) FROM penstock.leases l
JOIN penstock.processes p ON p.process = l.process WHERE NOT p.void AND p.id <> %s

-- name: cut_leases
-- A lease that reaches too far was given before the clock was set back.
UPDATE penstock.leases l SET until_ms = %s::bigint + p.lease_ms FROM penstock.processes p
WHERE p.process = l.process AND l.until_ms > %s::bigint + p.lease_ms

-- name: longest_lease
SELECT coalesce(max(lease_ms), 0) FROM penstock.processes WHERE NOT void

-- name: void
SELECT process, id FROM penstock.processes WHERE void ORDER BY process FOR UPDATE SKIP LOCKED

-- name: live_lease
SELECT p.process FROM penstock.processes p JOIN penstock.leases l ON l.process = p.process
WHERE p.id = %s AND NOT p.void AND l.until_ms > %s AND l.boot = %s

-- name: take_over
-- Claims of a void lease go to another process under new fences, those of code that had begun as crashed.
WITH held AS MATERIALIZED (
    SELECT c.id FROM penstock.claims c WHERE c.process = %s ORDER BY c.id LIMIT %s FOR UPDATE
)
UPDATE penstock.claims c SET number = c.number + 1, process = %s, beat = 0,
    token = uuid_hash_extended(gen_random_uuid(), 0),
    fate = coalesce(c.fate, CASE WHEN %s THEN CASE WHEN c.token = ANY (%s) THEN 'crashed' ELSE 'released' END ELSE 'lost' END)
FROM held h JOIN penstock.jobs j ON j.id = h.id WHERE c.id = h.id
RETURNING j.line, j.seq, j.id, c.number, c.token, j.policy, j.crc, j.created_ms, j.stage, j.cancel, j.details,
    j.counters, j.envelope, c.fate

-- name: has_cancels
UPDATE penstock.processes SET cancels = true WHERE process = %s AND NOT cancels

-- name: drop_process
WITH gone AS (
    DELETE FROM penstock.processes p WHERE p.process = %s
        AND NOT EXISTS (SELECT FROM penstock.claims c WHERE c.process = p.process)
    RETURNING process
),
leases AS (DELETE FROM penstock.leases l USING gone g WHERE l.process = g.process)
DELETE FROM penstock.beats b USING gone g WHERE b.process = g.process

-- name: forget_workers
DELETE FROM penstock.workers w WHERE NOT EXISTS (SELECT FROM penstock.processes p WHERE p.worker = w.worker)

-- name: drain_workers
UPDATE penstock.workers w SET drain = true WHERE w.worker = ANY (%s)
    AND EXISTS (SELECT FROM penstock.processes p WHERE p.worker = w.worker AND NOT p.void)
RETURNING w.worker

-- name: steer_workers
UPDATE penstock.processes SET steer = true WHERE worker = ANY (%s)

-- Time -----------------------------------------------------------------------------------------------------------------

-- name: due
SELECT j.id FROM penstock.jobs j WHERE j.due_ms <= %s
    AND NOT EXISTS (SELECT FROM penstock.arrivals a WHERE a.id = j.id)
ORDER BY j.due_ms, j.id LIMIT %s FOR UPDATE SKIP LOCKED

-- name: overdue
-- Unstarted waiting jobs past their deadline; the running ones among them are left out.
SELECT j.id FROM penstock.jobs j WHERE j.expires_ms <= %s AND NOT j.started
    AND NOT EXISTS (SELECT FROM penstock.claims c WHERE c.id = j.id)
ORDER BY j.expires_ms, j.id LIMIT %s

-- name: next_due
-- One that has yet to arrive is not due, however long its key is held by another transaction.
SELECT j.due_ms FROM penstock.jobs j WHERE j.due_ms IS NOT NULL
    AND NOT EXISTS (SELECT FROM penstock.arrivals a WHERE a.id = j.id)
ORDER BY j.due_ms LIMIT 1

-- name: next_expiry
SELECT j.expires_ms FROM penstock.jobs j WHERE j.expires_ms IS NOT NULL AND NOT j.started
    AND NOT EXISTS (SELECT FROM penstock.claims c WHERE c.id = j.id)
ORDER BY j.expires_ms LIMIT 1

-- name: forgettable
SELECT id FROM penstock.ended WHERE forget_ms <= %s ORDER BY forget_ms LIMIT %s FOR UPDATE SKIP LOCKED

-- name: kept
SELECT l.queue, sum(c.succeeded + c.cancelled + c.expired)::bigint FROM penstock.counted c
JOIN penstock.lines l ON l.line = c.line GROUP BY l.queue

-- name: surplus
-- Of the ends that a queue has too many of, the oldest go.
SELECT e.id, e.ended_ms FROM penstock.ended e
WHERE e.forget_ms IS NOT NULL AND e.ended_ms >= coalesce((SELECT swept FROM penstock.samples WHERE queue = %s), 0)
    AND e.line IN (SELECT line FROM penstock.lines WHERE queue = %s) ORDER BY e.ended_ms, e.id LIMIT %s

-- name: unsweep
-- Under a clock that was set back, jobs end before what was swept.
UPDATE penstock.samples SET swept = 0 WHERE swept > %s

-- name: unsweep_queue
UPDATE penstock.samples SET swept = %s WHERE queue = %s AND swept > %s

-- name: set_swept
INSERT INTO penstock.samples (queue, swept) VALUES (%s, %s) ON CONFLICT (queue) DO UPDATE SET swept = excluded.swept

-- name: free_windows
DELETE FROM penstock.uniques WHERE digest IN (
    SELECT digest FROM penstock.uniques WHERE free_ms <= %s LIMIT %s FOR UPDATE SKIP LOCKED)

-- name: forget_ledger
DELETE FROM penstock.ledger WHERE digest IN (
    SELECT digest FROM penstock.ledger WHERE until_ms <= %s LIMIT %s FOR UPDATE SKIP LOCKED)

-- name: samples
SELECT l.queue, sum(c.finished)::bigint, s.sampled_ms, coalesce(s.sampled_finished, 0), coalesce(s.rate, 0)
FROM penstock.lines l LEFT JOIN penstock.counted c ON c.line = l.line LEFT JOIN penstock.samples s ON s.queue = l.queue
GROUP BY l.queue, s.sampled_ms, s.sampled_finished, s.rate ORDER BY l.queue

-- name: sample
INSERT INTO penstock.samples (queue, sampled_ms, sampled_finished) VALUES (%s, %s, %s)
ON CONFLICT (queue) DO UPDATE SET sampled_ms = excluded.sampled_ms, sampled_finished = excluded.sampled_finished

-- name: set_rate
UPDATE penstock.samples SET rate = %s WHERE queue = %s

-- name: try_tend
-- One tender at a time samples and folds; others have nothing to add.
SELECT pg_try_advisory_xact_lock(penstock.place(), 8)

-- Moving ---------------------------------------------------------------------------------------------------------------

-- name: hold_process
SELECT penstock.hold_process(%s)

-- name: hold_claim
SELECT line FROM penstock.claims WHERE id = %s AND number = %s AND token = %s FOR UPDATE

-- name: move_job
-- A job that goes on at another stage has started, so its deadline is over.
UPDATE penstock.jobs SET line = %s, expires_ms = CASE WHEN stage = %s THEN expires_ms END, stage = %s, details = %s
WHERE id = %s

-- name: move_claim
UPDATE penstock.claims SET line = %s WHERE id = %s

-- Looking --------------------------------------------------------------------------------------------------------------

-- name: hot
SELECT j.id, CASE WHEN j.due_ms IS NOT NULL THEN 'scheduled' WHEN r.seq IS NOT NULL THEN 'ready' ELSE 'running' END AS state,
    j.line, j.policy, j.crc, j.created_ms, j.due_ms, j.expires_ms, j.details, coalesce(c.number, j.claims) AS claims,
    j.stage, j.cancel, j.counters, coalesce(c.claimed_ms, j.claimed_ms) AS claimed_ms, j.ran_us,
    coalesce(p.id, j.process) AS process, j.progress, j.history, j.forgiven, j.envelope, NULL::bigint AS ended_ms,
    NULL::bytea AS result, NULL::text AS degraded
FROM penstock.jobs j
LEFT JOIN LATERAL (SELECT r.seq FROM penstock.ready r WHERE r.line = j.line AND r.seq = j.seq LIMIT 1) r ON true
LEFT JOIN LATERAL (SELECT c.number, c.claimed_ms, c.process FROM penstock.claims c WHERE c.id = j.id LIMIT 1) c ON true
LEFT JOIN LATERAL (SELECT p.id FROM penstock.processes p WHERE p.process = c.process LIMIT 1) p ON true

-- name: cold
SELECT j.id, j.state, j.line, j.policy, j.crc, j.created_ms, NULL::bigint, j.expires_ms, j.details, j.claims, j.stage, false,
    j.counters, j.claimed_ms, j.ran_us, j.process, j.progress, j.history, j.forgiven, j.envelope, j.ended_ms, j.result,
    j.degraded
FROM penstock.ended j

-- name: groups
-- Answered by the index alone, as far as vacuum has kept up.
SELECT grp, count(*), min(ended_ms), max(ended_ms), max(id) FROM penstock.ended
WHERE forget_ms IS NULL AND grp IS NOT NULL GROUP BY grp ORDER BY grp

-- name: counts
SELECT l.queue, l.task, sum(c.scheduled)::bigint, sum(c.ready)::bigint, sum(c.running)::bigint, sum(c.succeeded)::bigint,
    sum(c.cancelled)::bigint, sum(c.expired)::bigint, sum(c.buried)::bigint
FROM penstock.counted c JOIN penstock.lines l ON l.line = c.line GROUP BY l.queue, l.task ORDER BY l.queue, l.task

-- name: queues
SELECT n.queue, coalesce(q.paused, false), q.max_jobs, coalesce(s.rate, 0), n.unfinished,
    (SELECT min((SELECT r.since_ms FROM penstock.ready r WHERE r.line = l.line ORDER BY r.seq LIMIT 1))
        FROM penstock.lines l WHERE l.queue = n.queue)
FROM (
    SELECT queue, sum(unfinished)::bigint AS unfinished, sum(kept) AS kept FROM (
        SELECT l.queue, c.scheduled + c.ready + c.running AS unfinished,
            c.succeeded + c.cancelled + c.expired + c.buried AS kept
        FROM penstock.counted c JOIN penstock.lines l ON l.line = c.line
        UNION ALL SELECT queue, 0, 0 FROM penstock.queues
    ) every GROUP BY queue
) n
LEFT JOIN penstock.queues q ON q.queue = n.queue LEFT JOIN penstock.samples s ON s.queue = n.queue
WHERE n.unfinished > 0 OR n.kept > 0 OR q.paused OR q.max_jobs IS NOT NULL ORDER BY n.queue

-- name: workers
SELECT w.worker, w.info, w.drain, w.enrolled_ms, p.id, l.until_ms, l.boot, coalesce(c.held, 0)
FROM penstock.workers w JOIN penstock.processes p ON p.worker = w.worker JOIN penstock.leases l ON l.process = p.process
LEFT JOIN (SELECT process, count(*) AS held FROM penstock.claims GROUP BY process) c ON c.process = p.process
WHERE NOT p.void ORDER BY w.worker, p.id

-- name: describe
SELECT epoch, (SELECT coalesce(sum(late), 0)::bigint FROM penstock.counted WHERE line = 0),
    current_setting('server_version'), current_setting('fsync'), current_setting('full_page_writes'),
    current_setting('synchronous_commit'), current_setting('synchronous_standby_names'),
    (SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
        WHERE c.relkind = 'r' AND c.relnamespace = (SELECT relnamespace FROM pg_class m WHERE m.oid = %s::regclass)),
    (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))
FROM penstock.meta

-- name: logs
SELECT attempt, body FROM penstock.logs WHERE id = %s ORDER BY attempt

-- name: news
SELECT (%s AND penstock.mark() > %s)
    OR EXISTS (SELECT FROM unnest(%s::text[]) g(id) WHERE NOT EXISTS (SELECT FROM penstock.jobs j WHERE j.id = g.id))
    OR (%s::text IS NOT NULL
        AND coalesce((SELECT steer OR void FROM penstock.processes WHERE id = %s), true))
    OR (%s::bigint IS NOT NULL AND EXISTS (SELECT FROM penstock.jobs WHERE due_ms < coalesce(%s, penstock.now_ms()) + %s))

-- name: behind
-- Whether a ready job has a number above this one: each line is searched from there, so what stands below costs nothing.
SELECT EXISTS (SELECT FROM penstock.lines l
    CROSS JOIN LATERAL (SELECT FROM penstock.ready y WHERE y.line = l.line AND y.seq > %s LIMIT 1) r
    WHERE %s::text[] IS NULL OR l.queue = ANY (%s))

-- Steering -------------------------------------------------------------------------------------------------------------

-- name: hold_holders
SELECT process, penstock.hold_process(id)::text FROM (
    SELECT DISTINCT p.id, p.process FROM penstock.claims c JOIN penstock.processes p ON p.process = c.process WHERE c.id = ANY (%s)
    ORDER BY p.id) holders

-- name: steer_holders
UPDATE penstock.processes SET steer = true, cancels = true WHERE process = ANY (%s)

-- name: unheld_holder
SELECT c.process FROM penstock.claims c WHERE c.id = ANY (%s) AND c.process <> ALL (%s) LIMIT 1

-- name: lock_jobs
SELECT id FROM penstock.jobs WHERE id = ANY (%s) ORDER BY id FOR UPDATE

-- name: lock_ready
SELECT r.id FROM penstock.jobs j JOIN penstock.ready r ON r.line = j.line AND r.seq = j.seq WHERE j.id = ANY (%s)
ORDER BY r.line, r.seq FOR UPDATE OF r

-- name: hot_rows
SELECT id, line, seq, due_ms, details, counters, envelope, crc, stage, policy FROM penstock.jobs WHERE id = ANY (%s)

-- name: cold_rows
SELECT id, line, state, details, counters, envelope, crc, expires_ms, stage, policy FROM penstock.ended WHERE id = ANY (%s)
ORDER BY id FOR UPDATE

-- name: ask_cancel
UPDATE penstock.jobs SET cancel = true WHERE id = ANY (%s)

-- name: draw_seq
SELECT nextval('penstock.ready_seq')

-- name: kick_scheduled
UPDATE penstock.jobs SET line = %s, seq = %s, due_ms = %s, started = false, cancel = false, counters = %s, forgiven = true,
    expires_ms = CASE WHEN expires_ms > %s THEN expires_ms END WHERE id = %s

-- name: put_ready
INSERT INTO penstock.ready (line, seq, since_ms, expires_ms, cancel, id)
SELECT line, seq, %s, CASE WHEN NOT started THEN expires_ms END, cancel, id FROM penstock.jobs WHERE id = %s

-- name: drop_ready
DELETE FROM penstock.ready WHERE line = %s AND seq = %s

-- name: edit
UPDATE penstock.jobs SET line = %s, seq = %s, crc = %s, details = %s, envelope = %s WHERE id = %s

-- name: reschedule
UPDATE penstock.jobs SET due_ms = %s, seq = NULL WHERE id = %s

-- name: unique_holder
SELECT id FROM penstock.uniques WHERE digest = %s AND (free_ms IS NULL OR free_ms > %s) FOR UPDATE

-- name: hold_unique
INSERT INTO penstock.uniques AS u (digest, until, id, free_ms) VALUES (%s, %s, %s, %s)
ON CONFLICT (digest) DO UPDATE SET until = excluded.until, id = excluded.id, free_ms = excluded.free_ms
WHERE u.id = excluded.id OR u.free_ms <= %s

-- name: hold_key
SELECT penstock.hold_key(%s, %s)

-- name: revive
INSERT INTO penstock.jobs (id, seq, due_ms, created_ms, expires_ms, claimed_ms, ran_us, crc, line, policy, claims, stage, forgiven,
    keyed, process, counters, details, progress, history, envelope)
SELECT id, %s, %s, created_ms, %s, claimed_ms, ran_us, %s, %s, policy, claims, %s, true, keyed, process, %s, %s, progress,
    history, %s FROM penstock.ended WHERE id = %s

-- name: drop_ended
DELETE FROM penstock.ended WHERE id = %s

-- name: count
INSERT INTO penstock.deltas (slot, line, scheduled, ready, running, succeeded, cancelled, expired, buried, finished)
SELECT penstock.slot(), * FROM unnest(%s::integer[], %s::integer[], %s::integer[], %s::integer[], %s::integer[], %s::integer[],
    %s::integer[], %s::integer[], %s::integer[])

-- name: add_queue
INSERT INTO penstock.queues (queue) VALUES (%s) ON CONFLICT DO NOTHING

-- name: lock_queue
SELECT paused FROM penstock.queues WHERE queue = %s FOR UPDATE

-- name: set_paused
UPDATE penstock.queues SET paused = %s WHERE queue = %s

-- name: set_max_jobs
UPDATE penstock.queues SET max_jobs = %s WHERE queue = %s

-- Loading --------------------------------------------------------------------------------------------------------------

-- name: is_known
SELECT 1 FROM penstock.jobs WHERE id = %s UNION ALL SELECT 1 FROM penstock.ended WHERE id = %s

-- name: load_waiting
INSERT INTO penstock.jobs (id, line, policy, crc, created_ms, expires_ms, keyed, details, envelope, claims, stage, counters,
    claimed_ms, ran_us, process, progress, history, seq, due_ms, cancel, started, forgiven)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)

-- name: load_ended
INSERT INTO penstock.ended (id, line, policy, crc, created_ms, expires_ms, keyed, details, envelope, claims, stage, counters,
    claimed_ms, ran_us, process, progress, history, state, ended_ms, forget_ms, forgiven, degraded, result)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)

-- Notes and ledger -----------------------------------------------------------------------------------------------------

-- name: held
SELECT 1 FROM penstock.claims WHERE id = %s AND number = %s AND token = %s FOR SHARE

-- name: set_progress
UPDATE penstock.jobs SET progress = %s WHERE id = %s

-- name: log_body
SELECT body FROM penstock.logs WHERE id = %s AND attempt = %s

-- name: set_log
INSERT INTO penstock.logs (id, attempt, body) VALUES (%s, %s, %s)
ON CONFLICT (id, attempt) DO UPDATE SET body = excluded.body

-- name: drop_old_logs
DELETE FROM penstock.logs WHERE id = %s AND attempt <= %s

-- name: ledger_begin
-- Write an entry where there is none, or an outlived one.
INSERT INTO penstock.ledger AS l (digest, id, number, token, until_ms) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (digest) DO UPDATE SET id = excluded.id, number = excluded.number, token = excluded.token,
    until_ms = excluded.until_ms, value = NULL
WHERE l.until_ms <= %s

-- name: ledger_entry
SELECT id, number, token, value, until_ms FROM penstock.ledger WHERE digest = %s

-- name: ledger_record
INSERT INTO penstock.ledger AS l (digest, id, number, token, value) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (digest) DO UPDATE SET id = excluded.id, number = excluded.number, token = excluded.token,
    value = excluded.value

-- name: ledger_take_back
DELETE FROM penstock.ledger WHERE digest = %s AND id = %s AND value IS NULL

-- name: ledger_drop
DELETE FROM penstock.ledger WHERE digest = %s AND (until_ms IS NULL OR until_ms > %s)

-- name: ledger_correct
UPDATE penstock.ledger SET value = %s WHERE digest = %s AND (until_ms IS NULL OR until_ms > %s)

-- name: ledger_settle
INSERT INTO penstock.ledger AS l (digest, id, number, token, value) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (digest) DO UPDATE SET id = excluded.id, number = excluded.number, token = excluded.token,
    value = excluded.value, until_ms = NULL

-- name: shared
SELECT key, value FROM penstock.shared WHERE kind = %s

-- name: shared_value
SELECT value FROM penstock.shared WHERE kind = %s AND key = %s

-- name: share_first
INSERT INTO penstock.shared (kind, key, value) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING

-- name: share_next
UPDATE penstock.shared SET value = %s WHERE kind = %s AND key = %s AND value = %s

-- name: share_no_more
DELETE FROM penstock.shared WHERE kind = %s AND key = %s AND value = %s

-- Inspection -----------------------------------------------------------------------------------------------------------

-- name: server
SELECT current_setting('server_version'), current_setting('server_version_num')::integer, pg_is_in_recovery(),
    current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),
    current_setting('synchronous_standby_names'), current_setting('autovacuum'), current_setting('track_counts'),
    (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')),
    (SELECT count(*) FROM pg_stat_activity), current_setting('max_connections')::integer,
    pg_notification_queue_usage(), has_database_privilege(current_database(), 'CREATE'), current_user,
    pg_has_role('pg_read_all_stats', 'USAGE'), current_setting('transaction_read_only')

-- name: old_transactions
-- Whoever holds back the removal of deleted rows, for longer than a minute.
SELECT pid, coalesce(usename, ''), coalesce(application_name, ''), coalesce(state, ''),
    extract(epoch FROM clock_timestamp() - xact_start)::bigint
FROM pg_stat_activity
WHERE xact_start < clock_timestamp() - interval '60 s' AND pid <> pg_backend_pid()
    AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND backend_type = 'client backend'
ORDER BY xact_start LIMIT 5

-- name: broken_indexes
SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE NOT i.indisvalid AND c.relnamespace = to_regnamespace(%s)

-- name: swollen_tables
SELECT relname, n_live_tup, n_dead_tup FROM pg_stat_user_tables
WHERE schemaname = %s AND n_dead_tup > 1000000 AND n_dead_tup > 2 * n_live_tup ORDER BY n_dead_tup DESC

-- name: unvacuumed
SELECT c.relname FROM pg_class c WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind = 'r'
    AND c.relname NOT LIKE 'deltas_%%' AND c.reloptions::text LIKE '%%autovacuum_enabled=false%%'

-- name: held_locks
SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
WHERE c.relnamespace = to_regnamespace(%s) AND l.mode IN ('AccessExclusiveLock', 'ExclusiveLock') AND l.granted
    AND l.pid <> pg_backend_pid()

-- name: recount
SELECT line FROM (
    SELECT line, count(*) AS counted FROM (
        SELECT line FROM penstock.jobs UNION ALL SELECT line FROM penstock.ended) every GROUP BY line
) real FULL JOIN (
    SELECT line, scheduled + ready + running + succeeded + cancelled + expired + buried AS kept FROM penstock.counted
    WHERE line > 0
) told USING (line) WHERE coalesce(counted, 0) <> coalesce(kept, 0)

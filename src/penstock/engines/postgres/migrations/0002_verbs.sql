-- The verbs that must be one step of the server: one call is one round trip and one transaction. The name `penstock.`
-- stands for the schema that `?schema=` names. What another language calls is `enqueue`, at the end.
--
-- No policy is decided here: which state follows is written in the change that comes in. Times are ms; `p_now` is NULL
-- but in tests, whose clock stands in for the server's. `p_wait` is how long to wait for a lock: less than the client waits
-- for the answer, so that nothing is done for one who has given up.

CREATE FUNCTION penstock.now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

-- The slot of deltas and arrivals for a transaction that begins now.
CREATE FUNCTION penstock.slot() RETURNS smallint LANGUAGE sql VOLATILE AS
$$ SELECT ((extract(epoch FROM clock_timestamp())::bigint / 10) % 3)::smallint $$;

-- The number by which advisory locks and the channel of this schema are told from those of others.
CREATE FUNCTION penstock.place() RETURNS integer LANGUAGE sql IMMUTABLE AS
$$ SELECT hashtext('penstock.') $$;

CREATE FUNCTION penstock.mark() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM penstock.ready_seq $$;

-- Tell those who wait for news: 1 work, 2 ends, 3 due times, 4 steering. Who waits holds a shared lock of the kind, so
-- where nobody does, nothing is sent: a notification takes a lock over the commit that all senders of a server share.
-- A queue of notifications that fills up must not fail a commit, so nothing is sent into one that is half full.
--
-- An assignment is evaluated at once, where PERFORM runs a query: functions of the hot path assign.
CREATE FUNCTION penstock.ring(p_kind integer) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF pg_try_advisory_lock(penstock.place(), p_kind) THEN
        RETURN NOT pg_advisory_unlock(penstock.place(), p_kind);
    ELSIF pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('penstock_' || penstock.place(), p_kind::text);
    END IF;
    RETURN true;
END $$;

-- Let nobody void the lease of a process, or exchange in its name, until this transaction ends. An advisory lock, because
-- the lock of a row is a write.
CREATE FUNCTION penstock.hold_process(p_id text) RETURNS void LANGUAGE sql VOLATILE AS
$$ SELECT pg_advisory_xact_lock(hashtextextended(p_id, penstock.place())) $$;

-- The history of a job with one more error at its end, stamped with the time; the last 20 are kept.
CREATE FUNCTION penstock.history_with(p_history bytea[], p_error bytea, p_now bigint) RETURNS bytea[]
LANGUAGE sql IMMUTABLE AS $$
SELECT CASE WHEN p_error IS NULL THEN p_history ELSE
    (coalesce(p_history, '{}') || (convert_to('{"at_ms":' || p_now || ',', 'UTF8') || substr(p_error, 2)))
        [greatest(1, coalesce(cardinality(p_history), 0) - 18):]
END $$;

-- The line that differs from another in these values alone; made if there is none.
CREATE FUNCTION penstock.line_like(
    p_line integer, p_alone boolean, p_queue text DEFAULT NULL, p_rank smallint DEFAULT NULL
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_line integer;
BEGIN
    LOOP
        SELECT w.line INTO v_line FROM penstock.lines l JOIN penstock.lines w
            ON w.queue = coalesce(p_queue, l.queue) AND md5(w.task) = md5(l.task)
            AND md5(w.fair_key) = md5(l.fair_key) AND w.alone = p_alone AND w.rank = coalesce(p_rank, l.rank)
            AND w.draft IS NULL
        WHERE l.line = p_line;
        IF v_line IS NOT NULL THEN
            RETURN v_line;
        END IF;
        INSERT INTO penstock.lines (queue, task, fair_key, alone, rank)
        SELECT coalesce(p_queue, l.queue), l.task, l.fair_key, p_alone, coalesce(p_rank, l.rank)
        FROM penstock.lines l WHERE l.line = p_line
        ON CONFLICT DO NOTHING;
    END LOOP;
END $$;

-- Free the unique keys of jobs that have ended; a window runs on by itself.
CREATE FUNCTION penstock.free_uniques(p_ids text[]) RETURNS void LANGUAGE sql AS
$$ DELETE FROM penstock.uniques WHERE id = ANY (p_ids) AND until <> 'window' $$;

-- End those of the jobs that wait, wherever they stand; answers them.
CREATE FUNCTION penstock.end_waiting(p_ids text[], p_state text, p_error bytea, p_now bigint) RETURNS text[]
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_ended text[];
    v_keyed text[];
BEGIN
    PERFORM 1 FROM penstock.jobs WHERE id = ANY (p_ids) ORDER BY id FOR UPDATE;
    WITH stands AS MATERIALIZED (SELECT id, line, seq, due_ms FROM penstock.jobs WHERE id = ANY (p_ids)),
    left_line AS (
        DELETE FROM penstock.ready r USING stands s WHERE s.due_ms IS NULL AND r.line = s.line AND r.seq = s.seq
        RETURNING r.id
    ),
    waiting AS (
        SELECT id, true AS scheduled FROM stands WHERE due_ms IS NOT NULL
        UNION ALL SELECT id, false FROM left_line
    ),
    old AS (
        DELETE FROM penstock.jobs j USING waiting w WHERE j.id = w.id
        RETURNING j.*, w.scheduled
    ),
    put AS (
        INSERT INTO penstock.ended (created_ms, ended_ms, forget_ms, expires_ms, claimed_ms, ran_us, crc, line, policy,
            claims, stage, forgiven, keyed, id, state, process, counters, details, progress, history, envelope)
        SELECT o.created_ms, p_now, CASE WHEN p_state <> 'buried' THEN p_now + p.keep_ms END, o.expires_ms,
            o.claimed_ms, o.ran_us, o.crc, o.line, o.policy, o.claims, o.stage, o.forgiven AND p_error IS NULL, o.keyed,
            o.id, p_state, o.process, o.counters, o.details, o.progress,
            penstock.history_with(o.history, p_error, p_now), o.envelope
        FROM old o JOIN penstock.policies p ON p.policy = o.policy
    ),
    tallied AS (
        INSERT INTO penstock.deltas (slot, line, scheduled, ready, cancelled, expired, buried, finished)
        SELECT penstock.slot(), line, -count(*) FILTER (WHERE scheduled), -count(*) FILTER (WHERE NOT scheduled),
            count(*) FILTER (WHERE p_state = 'cancelled'), count(*) FILTER (WHERE p_state = 'expired'),
            count(*) FILTER (WHERE p_state = 'buried'), count(*)
        FROM old GROUP BY line
    )
    SELECT array_agg(id), array_agg(id) FILTER (WHERE keyed) INTO v_ended, v_keyed FROM old;
    IF v_keyed IS NOT NULL THEN
        PERFORM penstock.free_uniques(v_keyed);
    END IF;
    IF v_ended IS NOT NULL THEN
        PERFORM penstock.ring(2);
    END IF;
    RETURN coalesce(v_ended, '{}');
END $$;

-- Adding ---------------------------------------------------------------------------------------------------------------

-- Store plain jobs: no keys, no id twice, no parent. Answers whether they were stored; if not, because an id is known or
-- a queue has a bound (NULL), nothing was and `add_each` must decide. Lines, policies and delays that all jobs share come as
-- arrays of one.
CREATE FUNCTION penstock.add(
    p_wait text, p_now bigint, p_ids text[], p_lines integer[], p_policies integer[], p_crcs bigint[], p_delays bigint[],
    p_run_ats bigint[], p_expires bigint[], p_expires_in bigint[], p_details bytea[], p_envelopes bytea[]
) RETURNS boolean LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_now bigint := coalesce(p_now, penstock.now_ms());
    v_stored integer;
    v_ready integer;
    v_set text := set_config('lock_timeout', p_wait, true);
    v_rung boolean;
BEGIN
    IF EXISTS (SELECT FROM penstock.queues WHERE max_jobs IS NOT NULL) AND EXISTS (
        SELECT FROM penstock.lines l JOIN penstock.queues q ON q.queue = l.queue
        WHERE l.line = ANY (p_lines) AND q.max_jobs IS NOT NULL
    ) THEN
        RETURN NULL;
    END IF;
    WITH given AS (
        SELECT x.id, coalesce(x.line, p_lines[1]) AS line, coalesce(x.policy, p_policies[1]) AS policy, x.crc, x.details,
            x.envelope, coalesce(x.run_at, v_now + coalesce(x.delay, p_delays[1])) AS at,
            coalesce(v_now + x.expires_in, x.expires) AS deadline
        FROM unnest(p_ids, p_lines, p_policies, p_crcs, p_delays, p_run_ats, p_expires, p_expires_in, p_details,
            p_envelopes) AS x(id, line, policy, crc, delay, run_at, expires, expires_in, details, envelope)
    ),
    stored AS (
        INSERT INTO penstock.jobs (id, seq, created_ms, due_ms, expires_ms, crc, line, policy, details, envelope)
        SELECT id, CASE WHEN at > v_now THEN NULL ELSE nextval('penstock.ready_seq') END, v_now,
            CASE WHEN at > v_now THEN at END, deadline, crc, line, policy, details, envelope
        FROM given
        ON CONFLICT (id) DO NOTHING
        RETURNING id, line, seq, expires_ms
    ),
    lined_up AS (
        INSERT INTO penstock.ready (line, seq, since_ms, expires_ms, id)
        SELECT line, seq, v_now, expires_ms, id FROM stored WHERE seq IS NOT NULL
    ),
    tallied AS (
        INSERT INTO penstock.deltas (slot, line, scheduled, ready)
        SELECT penstock.slot(), line, count(*) - count(seq), count(seq) FROM stored GROUP BY line
    )
    SELECT count(*), count(seq) INTO v_stored, v_ready FROM stored;
    IF v_stored < cardinality(p_ids) OR EXISTS (SELECT FROM penstock.ended WHERE id = ANY (p_ids)) THEN
        -- Take back what this transaction has stored.
        WITH own AS (
            DELETE FROM penstock.jobs j WHERE j.id = ANY (p_ids) AND j.xmin = pg_current_xact_id()::xid
            RETURNING j.line, j.seq
        ),
        left_line AS (DELETE FROM penstock.ready r USING own o WHERE r.line = o.line AND r.seq = o.seq)
        INSERT INTO penstock.deltas (slot, line, scheduled, ready)
        SELECT penstock.slot(), line, count(seq) - count(*), -count(seq) FROM own GROUP BY line;
        RETURN false;
    END IF;
    IF v_ready > 0 THEN
        v_rung := penstock.ring(1);
    END IF;
    IF v_ready < v_stored THEN
        v_rung := penstock.ring(3);
    END IF;
    RETURN true;
END $$;

-- Store one plain job, as `add` does.
CREATE FUNCTION penstock.add_one(
    p_wait text, p_now bigint, p_id text, p_line integer, p_policy integer, p_crc bigint, p_delay bigint, p_run_at bigint,
    p_expires bigint, p_expires_in bigint, p_details bytea, p_envelope bytea
) RETURNS boolean LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_now bigint := coalesce(p_now, penstock.now_ms());
    v_at bigint := coalesce(p_run_at, v_now + p_delay);
    v_deadline bigint := coalesce(v_now + p_expires_in, p_expires);
    v_seq bigint := CASE WHEN v_at <= v_now THEN nextval('penstock.ready_seq') END;
    v_set text := set_config('lock_timeout', p_wait, true);
    v_bounded boolean;
    v_known boolean;
    v_rung boolean;
BEGIN
    INSERT INTO penstock.jobs (id, seq, created_ms, due_ms, expires_ms, crc, line, policy, details, envelope)
    VALUES (p_id, v_seq, v_now, CASE WHEN v_seq IS NULL THEN v_at END, v_deadline, p_crc, p_line, p_policy, p_details,
        p_envelope)
    ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SELECT EXISTS (SELECT FROM penstock.ended e WHERE e.id = p_id),
        EXISTS (SELECT FROM penstock.queues q WHERE q.max_jobs IS NOT NULL
            AND q.queue = (SELECT l.queue FROM penstock.lines l WHERE l.line = p_line))
    INTO v_known, v_bounded;
    IF v_known OR v_bounded THEN
        DELETE FROM penstock.jobs j WHERE j.id = p_id;
        RETURN CASE WHEN v_known THEN false END;
    END IF;
    INSERT INTO penstock.deltas (slot, line, scheduled, ready)
    VALUES (penstock.slot(), p_line, (v_seq IS NULL)::integer, (v_seq IS NOT NULL)::integer);
    IF v_seq IS NOT NULL THEN
        INSERT INTO penstock.ready (line, seq, since_ms, expires_ms, id) VALUES (p_line, v_seq, v_now, v_deadline, p_id);
        v_rung := penstock.ring(1);
    ELSE
        v_rung := penstock.ring(3);
    END IF;
    RETURN true;
END $$;

-- A job on its way in. idempotency, uniqueness: digests of its keys; the rest of them as in `Unique`.
CREATE TYPE penstock.incoming AS (
    id text, line integer, policy integer, crc bigint, delay_ms bigint, run_at_ms bigint, expires_ms bigint,
    expires_in_ms bigint, idempotency bytea, uniqueness bytea, until text, window_ms bigint, clash text, details bytea,
    envelope bytea
);

-- What is known of a job under an id: nothing, the same task and envelope, or others.
CREATE FUNCTION penstock.compare(p_id text, j penstock.incoming) RETURNS boolean LANGUAGE sql STABLE AS $$
SELECT l.task = w.task AND known.envelope = (j).envelope
FROM (
    SELECT line, envelope FROM penstock.jobs WHERE id = p_id
    UNION ALL SELECT line, envelope FROM penstock.ended WHERE id = p_id
) known JOIN penstock.lines l ON l.line = known.line JOIN penstock.lines w ON w.line = (j).line
$$;

-- Decide one job against what is stored, and store it. code 0: stored; 1: `holder` stands in for it; 2: its id, 3: its
-- idempotency key belongs to `holder`, which has other content; 4: `holder` has its unique key and it refuses that.
--
-- Within a transaction of the application, which may be long or roll back, the job stands as scheduled until it has
-- arrived, and replaces another then; who adds the same key meanwhile waits, nobody else does.
CREATE FUNCTION penstock.take_in(
    j penstock.incoming, p_now bigint, p_within boolean, OUT code integer, OUT holder text
) LANGUAGE plpgsql AS $$
DECLARE
    v_same boolean;
    v_at bigint := coalesce(j.run_at_ms, p_now + j.delay_ms);
    v_deadline bigint := coalesce(p_now + j.expires_in_ms, j.expires_ms);
    v_replaces boolean := false;
    v_clash text := j.clash;
    v_seq bigint;
BEGIN
    holder := j.id;
    v_same := penstock.compare(j.id, j);
    IF v_same IS NOT NULL THEN
        code := CASE WHEN v_same THEN 1 ELSE 2 END;
        RETURN;
    END IF;
    IF j.idempotency IS NOT NULL THEN
        holder := penstock.hold_key(j.idempotency, j.id);
        IF holder IS NOT NULL THEN
            v_same := penstock.compare(holder, j);
            IF v_same IS NULL THEN
                RAISE serialization_failure USING MESSAGE = 'the holder of a key was forgotten at this moment';
            END IF;
            code := CASE WHEN v_same THEN 1 ELSE 3 END;
            RETURN;
        END IF;
    END IF;
    IF j.uniqueness IS NOT NULL THEN
        IF p_within AND j.clash = 'replace' THEN
            v_replaces := EXISTS (
                SELECT FROM penstock.uniques u JOIN penstock.jobs w ON w.id = u.id
                WHERE u.digest = j.uniqueness AND NOT EXISTS (SELECT FROM penstock.claims c WHERE c.id = u.id));
            v_clash := 'keep';  -- a holder that runs stands in for it, and must not be locked
        END IF;
        IF NOT v_replaces THEN
            holder := penstock.hold_unique(j.uniqueness, j.id, j.until, j.window_ms, v_clash, p_now);
            IF holder IS NOT NULL THEN
                IF j.idempotency IS NOT NULL THEN
                    DELETE FROM penstock.keys WHERE digest = j.idempotency;
                END IF;
                code := CASE WHEN j.clash = 'refuse' THEN 4 ELSE 1 END;
                RETURN;
            END IF;
        END IF;
    END IF;
    v_seq := CASE WHEN v_at <= p_now AND NOT p_within THEN nextval('penstock.ready_seq') END;
    INSERT INTO penstock.jobs (id, seq, created_ms, due_ms, expires_ms, crc, line, policy, keyed, details, envelope)
    VALUES (j.id, v_seq, p_now, CASE WHEN v_seq IS NULL THEN greatest(v_at, p_now) END, v_deadline, j.crc, j.line,
        j.policy, j.idempotency IS NOT NULL OR j.uniqueness IS NOT NULL, j.details, j.envelope)
    ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND OR EXISTS (SELECT FROM penstock.ended WHERE id = j.id) THEN
        RAISE serialization_failure USING MESSAGE = 'the same id was used at this moment';
    END IF;
    IF p_within THEN
        INSERT INTO penstock.arrivals (slot, window_ms, line, id, uniqueness, until)
        VALUES (penstock.slot(), j.window_ms, j.line, j.id, CASE WHEN v_replaces THEN j.uniqueness END, j.until);
    ELSE
        INSERT INTO penstock.ready (line, seq, since_ms, expires_ms, id)
        SELECT j.line, v_seq, p_now, v_deadline, j.id WHERE v_seq IS NOT NULL;
        INSERT INTO penstock.deltas (slot, line, scheduled, ready)
        VALUES (penstock.slot(), j.line, (v_seq IS NULL)::integer, (v_seq IS NOT NULL)::integer);
    END IF;
    code := 0;
    holder := j.id;
END $$;

-- Take an idempotency key, or answer whose it is; that of a job which is no more is free. A key that is not taken is only
-- read, here and in `hold_unique`: an insertion that meets it would lock it until the transaction at hand ends.
CREATE FUNCTION penstock.hold_key(p_digest bytea, p_id text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_holder text;
BEGIN
    LOOP
        SELECT k.id INTO v_holder FROM penstock.keys k WHERE k.digest = p_digest AND (
            EXISTS (SELECT FROM penstock.jobs j WHERE j.id = k.id) OR EXISTS (SELECT FROM penstock.ended e WHERE e.id = k.id));
        IF FOUND THEN
            RETURN v_holder;
        END IF;
        INSERT INTO penstock.keys AS k (digest, id) VALUES (p_digest, p_id)
        ON CONFLICT (digest) DO UPDATE SET id = excluded.id
        WHERE NOT EXISTS (SELECT FROM penstock.jobs WHERE id = k.id)
            AND NOT EXISTS (SELECT FROM penstock.ended WHERE id = k.id);
        IF FOUND THEN
            RETURN NULL;
        END IF;
    END LOOP;
END $$;

-- Take a unique key, or answer who keeps it. With the clash `replace` a holder that still waits is cancelled.
CREATE FUNCTION penstock.hold_unique(
    p_digest bytea, p_id text, p_until text, p_window bigint, p_clash text, p_now bigint
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_holder text;
    v_error bytea;
BEGIN
    LOOP
        SELECT id INTO v_holder FROM penstock.uniques
        WHERE digest = p_digest AND (free_ms IS NULL OR free_ms > p_now) AND p_clash <> 'replace';
        IF FOUND THEN
            RETURN v_holder;
        END IF;
        INSERT INTO penstock.uniques AS u (digest, free_ms, until, id)
        VALUES (p_digest, CASE WHEN p_until = 'window' THEN p_now + p_window END, p_until, p_id)
        ON CONFLICT (digest) DO UPDATE SET free_ms = excluded.free_ms, until = excluded.until, id = excluded.id
        WHERE u.free_ms <= p_now;
        IF FOUND THEN
            RETURN NULL;
        END IF;
        SELECT id INTO v_holder FROM penstock.uniques WHERE digest = p_digest;
        IF FOUND AND p_clash = 'replace' THEN
            v_error := convert_to(json_build_object('kind', 'cancelled', 'message', 'replaced by ' || p_id)::text, 'UTF8');
            IF v_holder <> ALL (penstock.end_waiting(ARRAY[v_holder], 'cancelled', v_error, p_now)) THEN
                RETURN v_holder;
            END IF;
            DELETE FROM penstock.uniques WHERE digest = p_digest AND id = v_holder;
        END IF;
    END LOOP;
END $$;

-- How far a queue with a bound is over it. What is read stays locked against truncation until the transaction ends, but not
-- where its reading is taken back: within a transaction of the application, which may be long, it is.
CREATE FUNCTION penstock.overflow(p_queue text, p_max bigint, p_within boolean) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_lines integer[] := ARRAY(SELECT line FROM penstock.lines WHERE queue = p_queue);
    v_over bigint;
BEGIN
    SELECT coalesce(sum(every.unfinished), 0)::bigint - p_max INTO v_over FROM (
        SELECT t.scheduled + t.ready + t.running AS unfinished FROM penstock.totals t WHERE t.line = ANY (v_lines)
        UNION ALL SELECT d.scheduled + d.ready + d.running FROM penstock.deltas d WHERE d.line = ANY (v_lines)
        UNION ALL SELECT 1 FROM penstock.arrivals a WHERE a.line = ANY (v_lines)
    ) every;
    IF p_within THEN
        RAISE SQLSTATE 'PS003';
    END IF;
    RETURN v_over;
EXCEPTION WHEN SQLSTATE 'PS003' THEN
    RETURN v_over;  -- a rollback to a savepoint lets go of the locks that were taken since
END $$;

-- Store requests of any kind, each whole or not at all; `p_request` numbers them from 1. A parent is given with each
-- job of its request. One row for each job; a refused request has one row for all, with a code from 2 on: see `take_in`;
-- 5: `holder`, a queue, is over its bound by `over`; 6: the claim of the parent, `holder`, is stale. Within a transaction of
-- the application a bound is compared with what can be seen, and no lock on it is held.
CREATE FUNCTION penstock.add_each(
    p_wait text, p_now bigint, p_within boolean, p_bounded boolean, p_requests integer[], p_parents text[],
    p_numbers integer[], p_tokens bigint[], p_ids text[], p_lines integer[], p_policies integer[], p_crcs bigint[], p_delays bigint[], p_run_ats bigint[],
    p_expires bigint[], p_expires_in bigint[], p_idempotency bytea[], p_uniqueness bytea[], p_untils text[],
    p_windows bigint[], p_clashes text[], p_details bytea[], p_envelopes bytea[]
) RETURNS TABLE (request integer, place integer, code integer, holder text, over bigint, bound bigint, rate double precision)
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off SET lock_timeout = '4s' AS $$
DECLARE
    v_now bigint := coalesce(p_now, penstock.now_ms());
    v_jobs penstock.incoming[];
    v_stored integer[];
    v_codes integer[];
    v_holders text[];
    v_from integer := 1;
    v_to integer;
    v_rings integer := 0;
    j penstock.incoming;
BEGIN
    PERFORM set_config('lock_timeout', p_wait, true);  -- what the caller had comes back when this function returns
    IF p_bounded AND NOT p_within THEN
        PERFORM 1 FROM penstock.queues q WHERE q.max_jobs IS NOT NULL AND q.queue IN (
            SELECT l.queue FROM penstock.lines l WHERE l.line = ANY (p_lines)) ORDER BY q.queue FOR UPDATE;
    END IF;
    WHILE v_from <= cardinality(p_ids) LOOP
        v_to := v_from;
        WHILE p_requests[v_to + 1] = p_requests[v_from] LOOP
            v_to := v_to + 1;
        END LOOP;
        request := p_requests[v_from];
        v_codes := '{}';
        v_holders := '{}';
        v_stored := '{}';
        over := NULL;
        BEGIN
            IF p_parents[v_from] IS NOT NULL AND NOT EXISTS (
                SELECT FROM penstock.claims c WHERE c.id = p_parents[v_from] AND c.number = p_numbers[v_from]
                    AND c.token = p_tokens[v_from]
            ) THEN
                code := 6;
                holder := p_parents[v_from];
                RAISE SQLSTATE 'PS002';
            END IF;
            FOR i IN v_from .. v_to LOOP
                j := ROW(p_ids[i], p_lines[i], p_policies[i], p_crcs[i], p_delays[i], p_run_ats[i], p_expires[i],
                    p_expires_in[i], p_idempotency[i], p_uniqueness[i], p_untils[i], p_windows[i], p_clashes[i],
                    p_details[i], p_envelopes[i]);
                SELECT t.code, t.holder INTO code, holder FROM penstock.take_in(j, v_now, p_within) t;
                place := i;
                IF code >= 2 THEN
                    RAISE SQLSTATE 'PS002';
                END IF;
                v_codes := v_codes || code;
                v_holders := v_holders || holder;
                IF code = 0 THEN
                    v_stored := v_stored || p_lines[i];
                    v_rings := v_rings | CASE WHEN coalesce(j.run_at_ms, v_now + j.delay_ms) > v_now THEN 2 ELSE 1 END;
                END IF;
            END LOOP;
            SELECT q.queue, o.over, q.max_jobs, coalesce(m.rate, 0)
            INTO holder, over, bound, rate
            FROM penstock.queues q LEFT JOIN penstock.samples m ON m.queue = q.queue
            CROSS JOIN LATERAL (SELECT penstock.overflow(q.queue, q.max_jobs, p_within) AS over OFFSET 0) o
            WHERE q.max_jobs IS NOT NULL AND o.over > 0
                AND q.queue IN (SELECT l.queue FROM penstock.lines l WHERE l.line = ANY (v_stored))
            LIMIT 1;
            IF FOUND AND p_bounded THEN
                code := 5;
                RAISE SQLSTATE 'PS002';
            END IF;
            FOR i IN 1 .. cardinality(v_codes) LOOP
                code := v_codes[i];
                holder := v_holders[i];
                place := v_from + i - 1;
                RETURN NEXT;
            END LOOP;
        EXCEPTION WHEN SQLSTATE 'PS002' THEN
            RETURN NEXT;
        END;
        v_from := v_to + 1;
    END LOOP;
    IF p_within THEN
        -- Who will wait when the caller commits is not known now.
        IF v_rings > 0 AND pg_notification_queue_usage() < 0.5 THEN
            PERFORM pg_notify('penstock_' || penstock.place(), '5');
        END IF;
        RETURN;
    END IF;
    IF v_rings & 1 > 0 THEN
        PERFORM penstock.ring(1);
    END IF;
    IF v_rings & 2 > 0 THEN
        PERFORM penstock.ring(3);
    END IF;
END $$;

-- Exchange -------------------------------------------------------------------------------------------------------------

-- Write down what has ended; answers the places of those that came too late, in their order. after is NULL for a final
-- state. Part of `exchange`, whose settings hold here. Numbers, states and counters that all changes share come as arrays
-- of one, unless a change brings its job back: each array that is taken apart costs as much as a column of a table.
CREATE FUNCTION penstock.apply_changes(
    p_process integer, p_id text, p_now bigint, c_ids text[], c_numbers integer[], c_tokens bigint[], c_states text[],
    c_afters bigint[], c_rans bigint[], c_started boolean[], c_alone boolean[], c_counters bytea[], c_results bytea[],
    c_errors bytea[], c_degraded text[]
) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
    v_late integer[];
    v_done integer[];
    v_back integer[];
    v_claimed_ms bigint[];
    v_holders text[];
    v_keyed text[];
    v_ended integer;
    v_policy integer;
    v_keep_ms bigint;
    v_rung boolean;
BEGIN
    SELECT p.policy, p.keep_ms INTO v_policy, v_keep_ms FROM penstock.policies p
    WHERE p.policy = (SELECT j.policy FROM penstock.jobs j WHERE j.id = c_ids[1]);
    WITH gone AS (
        DELETE FROM penstock.claims c
        USING unnest(c_ids, c_numbers, c_tokens, c_states, c_afters, c_rans, c_counters, c_results, c_errors, c_degraded)
            WITH ORDINALITY AS g(id, number, token, state, after_ms, ran_us, counters, result, error, degraded, place)
        WHERE c.id = g.id AND c.number = coalesce(g.number, c_numbers[1]) AND c.token = g.token
        RETURNING c.id, c.number, coalesce(g.state, c_states[1]) AS state, g.after_ms, g.ran_us,
            CASE WHEN cardinality(c_counters) = 1 THEN c_counters[1] ELSE g.counters END AS counters, g.result, g.error,
            g.degraded, g.place, c.line, c.claimed_ms, c.keyed, CASE WHEN c.process = p_process THEN p_id
            ELSE (SELECT p.id FROM penstock.processes p WHERE p.process = c.process) END AS process
    ),
    old AS (
        DELETE FROM penstock.jobs j USING gone g WHERE g.after_ms IS NULL AND j.id = g.id
        RETURNING j.id, j.created_ms, j.expires_ms, j.crc, j.line, j.policy, j.stage, j.forgiven, j.keyed, j.details,
            j.progress, j.history, j.envelope, g.number, g.claimed_ms, g.ran_us, g.state, g.process, g.degraded,
            g.counters, g.result, g.error
    ),
    put AS (
        INSERT INTO penstock.ended (created_ms, ended_ms, forget_ms, expires_ms, claimed_ms, ran_us, crc, line, policy,
            claims, stage, forgiven, keyed, id, state, process, degraded, counters, details, progress, history, result,
            envelope)
        SELECT o.created_ms, p_now, CASE WHEN o.state = 'buried' THEN NULL WHEN o.policy = v_policy THEN p_now + v_keep_ms
                ELSE p_now + (SELECT p.keep_ms FROM penstock.policies p WHERE p.policy = o.policy) END, o.expires_ms,
            o.claimed_ms, o.ran_us, o.crc, o.line, o.policy, o.number, o.stage, o.forgiven AND o.error IS NULL, o.keyed,
            o.id, o.state, o.process, o.degraded, o.counters, o.details, o.progress,
            CASE WHEN o.error IS NULL THEN o.history ELSE penstock.history_with(o.history, o.error, p_now) END,
            o.result, o.envelope
        FROM old o
    ),
    tallied AS (
        INSERT INTO penstock.deltas (slot, line, running, succeeded, cancelled, expired, buried, finished)
        SELECT penstock.slot(), line, -count(*), count(*) FILTER (WHERE state = 'succeeded'),
            count(*) FILTER (WHERE state = 'cancelled'), count(*) FILTER (WHERE state = 'expired'),
            count(*) FILTER (WHERE state = 'buried'), count(*) FILTER (WHERE after_ms IS NULL)
        FROM gone GROUP BY line
    )
    SELECT array_agg(g.place::integer), count(*) FILTER (WHERE g.after_ms IS NULL),
        array_agg(g.place::integer ORDER BY g.place) FILTER (WHERE g.after_ms IS NOT NULL),
        array_agg(g.claimed_ms ORDER BY g.place) FILTER (WHERE g.after_ms IS NOT NULL),
        array_agg(g.process ORDER BY g.place) FILTER (WHERE g.after_ms IS NOT NULL),
        array_agg(g.id) FILTER (WHERE g.keyed AND g.after_ms IS NULL)
    INTO v_done, v_ended, v_back, v_claimed_ms, v_holders, v_keyed
    FROM gone g;
    IF coalesce(cardinality(v_done), 0) < cardinality(c_ids) THEN
        SELECT array_agg(x.place ORDER BY x.place) INTO v_late
        FROM generate_subscripts(c_ids, 1) AS x(place) LEFT JOIN unnest(v_done) AS d(place) ON d.place = x.place
        WHERE d.place IS NULL;
    END IF;
    IF v_back IS NOT NULL THEN
        PERFORM penstock.bring_back(p_now, v_back, v_claimed_ms, v_holders, c_ids, c_numbers, c_states, c_afters, c_rans,
            c_started, c_alone, c_counters, c_errors);
    END IF;
    IF v_keyed IS NOT NULL THEN
        PERFORM penstock.free_uniques(v_keyed);
    END IF;
    IF v_late IS NOT NULL THEN
        INSERT INTO penstock.deltas (slot, line, late) VALUES (penstock.slot(), 0, cardinality(v_late));
    END IF;
    IF v_ended > 0 THEN
        v_rung := penstock.ring(2);
    END IF;
    RETURN coalesce(v_late, '{}');
END $$;

-- Bring jobs back that were running, those at the places of the arrays: ready, or scheduled.
CREATE FUNCTION penstock.bring_back(
    p_now bigint, p_places integer[], p_claimed_ms bigint[], p_holders text[], c_ids text[], c_numbers integer[],
    c_states text[], c_afters bigint[], c_rans bigint[], c_started boolean[], c_alone boolean[], c_counters bytea[],
    c_errors bytea[]
) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_place integer;
    v_line integer;
    v_seq bigint;
    v_due bigint;
    v_job record;
    v_rings integer := 0;
BEGIN
    FOR i IN 1 .. cardinality(p_places) LOOP
        v_place := p_places[i];
        SELECT j.line, j.expires_ms, j.cancel, l.alone INTO STRICT v_job
        FROM penstock.jobs j JOIN penstock.lines l ON l.line = j.line WHERE j.id = c_ids[v_place] FOR UPDATE OF j;
        v_line := v_job.line;
        IF v_job.alone <> c_alone[v_place] THEN
            v_line := penstock.line_like(v_job.line, c_alone[v_place]);
        END IF;
        v_due := CASE WHEN c_states[v_place] = 'scheduled' THEN p_now + c_afters[v_place] END;
        v_seq := CASE WHEN v_due IS NULL THEN nextval('penstock.ready_seq') END;
        UPDATE penstock.jobs SET line = v_line, seq = v_seq, due_ms = v_due, claims = c_numbers[v_place],
            started = c_started[v_place], counters = c_counters[v_place], claimed_ms = p_claimed_ms[i],
            ran_us = c_rans[v_place], process = p_holders[i],
            history = penstock.history_with(history, c_errors[v_place], p_now),
            forgiven = forgiven AND c_errors[v_place] IS NULL
        WHERE id = c_ids[v_place];
        IF v_seq IS NOT NULL THEN
            INSERT INTO penstock.ready (line, seq, since_ms, expires_ms, cancel, id)
            VALUES (v_line, v_seq, p_now, CASE WHEN NOT c_started[v_place] THEN v_job.expires_ms END, v_job.cancel,
                c_ids[v_place]);
        END IF;
        INSERT INTO penstock.deltas (slot, line, scheduled, ready)
        VALUES (penstock.slot(), v_line, (v_seq IS NULL)::integer, (v_seq IS NOT NULL)::integer);
        v_rings := v_rings | CASE WHEN v_seq IS NULL THEN 2 ELSE 1 END;
    END LOOP;
    IF v_rings & 1 > 0 THEN
        PERFORM penstock.ring(1);
    END IF;
    IF v_rings & 2 > 0 THEN
        PERFORM penstock.ring(3);
    END IF;
END $$;

-- The claims that a process took with a beat, in the columns of `exchange`.
CREATE FUNCTION penstock.claims_of(p_process integer, p_beat bigint) RETURNS TABLE (
    line integer, seq bigint, id text, number integer, token bigint, policy integer, crc bigint, created_ms bigint,
    stage integer, cancel boolean, details bytea, counters bytea, envelope bytea
) LANGUAGE sql SET enable_seqscan = off AS $$
SELECT j.line, j.seq, j.id, c.number, c.token, j.policy, j.crc, j.created_ms, j.stage, j.cancel, j.details, j.counters,
    j.envelope
FROM penstock.claims c JOIN penstock.jobs j ON j.id = c.id JOIN penstock.lines l ON l.line = j.line
WHERE c.process = p_process AND c.beat = p_beat AND c.fate IS NULL ORDER BY l.rank, j.seq
$$;

-- Apply the changes, then claim what can run. One row for each claim, and one with `line` NULL, the head of the answer:
-- its `envelope` is a JSON object (see `exchanging.Head`).
--
-- p_part: 0 does all; 1 applies the changes only; 2 claims only, where c_ids names what 1 found late. Both parts belong in
-- one transaction; between them the caller stores what follows from the changes.
-- w_*: the tasks with the number of their runner in w_free; w_alone is that of jobs that run alone; queues with the number of
-- their group, or NULL for every queue. k_*: how far lines were seen, and p_settled what was drawn so long ago that
-- whoever drew it has committed: a search begins after the lesser of both.
-- b_*: the number of the process, and its last beat that is remembered, as the caller knows them. Where more is remembered,
-- a call that the caller took for failed was done after all, and after idle ones: what it claimed is told now.
CREATE FUNCTION penstock.exchange(
    p_wait text, p_part integer, p_name text, p_beat bigint, p_now bigint, c_ids text[], c_numbers integer[], c_tokens bigint[],
    c_states text[], c_afters bigint[], c_rans bigint[], c_started boolean[], c_alone boolean[], c_counters bytea[],
    c_results bytea[], c_errors bytea[], c_degraded text[], w_limit integer, w_tasks text[], w_runners integer[],
    w_alone integer, w_free integer[], w_queues text[], w_groups integer[], p_settled bigint, k_lines integer[],
    k_seqs bigint[], b_process integer, b_beat bigint
) RETURNS TABLE (
    line integer, seq bigint, id text, number integer, token bigint, policy integer, crc bigint, created_ms bigint,
    stage integer, cancel boolean, details bytea, counters bytea, envelope bytea
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_now bigint := coalesce(p_now, penstock.now_ms());
    p record;
    v_late text[] := '{}';
    v_places integer[] := '{}';
    v_mark bigint;
    v_remembered bigint;
    v_claimed integer := 0;
    v_most integer;
    v_found integer;
    v_count integer;
    v_cancels boolean;
    v_asked json := '[]';
    v_expired text[];
    v_over integer := 0;
    v_left integer := w_limit;
    v_free integer[] := w_free;
    l_line integer[];
    l_runner integer[];
    l_group integer[];
    l_rank smallint[];
    l_from bigint[];
    f_line integer[];
    f_seq bigint[];
    f_runner integer[];
    t_id text[];
    t_runner integer[];
    t_cancel boolean;
    v_random uuid := gen_random_uuid();
    v_set text;
BEGIN
    v_set := set_config('lock_timeout', p_wait, true);
    v_set := pg_advisory_xact_lock(hashtextextended(p_name, penstock.place()));  -- as hold_process
    SELECT s.process, s.void, s.steer, s.cancels, w.drain, b.beat, b.mark, b.late INTO p
    FROM penstock.processes s JOIN penstock.workers w ON w.worker = s.worker
    LEFT JOIN LATERAL (
        SELECT b.beat, b.mark, b.late FROM penstock.beats b WHERE b.process = s.process ORDER BY b.beat DESC LIMIT 1
    ) b ON true
    WHERE s.id = p_name;
    IF p.process IS NULL OR p.void THEN
        IF p_part < 2 AND cardinality(c_ids) > 0 THEN
            INSERT INTO penstock.deltas (slot, line, late) VALUES (penstock.slot(), 0, cardinality(c_ids));
        END IF;
        envelope := convert_to('{"lost":true}', 'UTF8');
        RETURN NEXT;
        RETURN;
    END IF;
    v_cancels := p.cancels;
    IF p_beat < greatest(1, coalesce(p.beat, 0)) THEN
        envelope := convert_to(json_build_object('before', p.beat)::text, 'UTF8');
        RETURN NEXT;
        RETURN;
    END IF;
    IF p_beat = p.beat THEN
        RETURN QUERY SELECT * FROM penstock.claims_of(p.process, p_beat);
        UPDATE penstock.processes s SET steer = false WHERE s.process = p.process AND s.steer;
        v_late := coalesce(p.late, '{}');
        v_mark := p.mark;
        v_cancels := true;
    ELSE
        IF p_part = 2 THEN
            v_late := c_ids;
        ELSIF cardinality(c_ids) > 0 THEN
            v_places := penstock.apply_changes(p.process, p_name, v_now, c_ids, c_numbers, c_tokens, c_states, c_afters,
                c_rans, c_started, c_alone, c_counters, c_results, c_errors, c_degraded);
            IF cardinality(v_places) > 0 THEN
                v_late := ARRAY(SELECT c_ids[x.place] FROM unnest(v_places) x(place) ORDER BY x.place);
            END IF;
        END IF;
        SELECT CASE WHEN m.is_called THEN m.last_value ELSE 0 END INTO v_mark FROM penstock.ready_seq m;
        IF p_part = 1 THEN
            envelope := convert_to(json_build_object('applied', true, 'late', v_late, 'places', v_places)::text, 'UTF8');
            RETURN NEXT;
            RETURN;
        END IF;
        IF p.beat > b_beat AND b_process = p.process THEN
            UPDATE penstock.claims c SET beat = p_beat
            WHERE c.process = p.process AND c.beat > b_beat AND c.fate IS NULL;
            GET DIAGNOSTICS v_claimed = ROW_COUNT;
        END IF;
        IF v_claimed > 0 THEN
            RETURN QUERY SELECT * FROM penstock.claims_of(p.process, p_beat);
            v_cancels := true;
            v_mark := v_mark - 1;  -- nothing was looked for
        ELSIF w_limit > 0 THEN
            SELECT array_agg(l.line), array_agg(r.runner), array_agg(coalesce(q.place, 0)), array_agg(l.rank),
                array_agg(least(coalesce(k.seq, 0), p_settled))
            INTO l_line, l_runner, l_group, l_rank, l_from
            FROM penstock.lines l
            JOIN unnest(w_tasks, w_runners) t(task, runner) ON t.task = l.task
            CROSS JOIN LATERAL (SELECT CASE WHEN l.alone THEN w_alone ELSE t.runner END AS runner) r
            LEFT JOIN unnest(w_queues, w_groups) q(queue, place) ON q.queue = l.queue
            LEFT JOIN unnest(k_lines, k_seqs) k(line, seq) ON k.line = l.line
            WHERE (w_queues IS NULL OR q.queue IS NOT NULL) AND w_free[r.runner] > 0 AND l.draft IS NULL
                AND NOT EXISTS (SELECT FROM penstock.queues s WHERE s.queue = l.queue AND s.paused);
        END IF;
        WHILE v_left > 0 AND l_line IS NOT NULL LOOP
            IF cardinality(l_line) = 1 THEN
                -- One line alone is searched and taken in one go.
                v_most := least(v_left, v_free[l_runner[1]]);
                WITH locked AS MATERIALIZED (
                    SELECT y.ctid AS at, y.id, y.seq, y.cancel,
                        y.expires_ms IS NOT NULL AND y.expires_ms <= v_now AS over
                    FROM penstock.ready y WHERE y.line = l_line[1] AND y.seq > l_from[1]
                    ORDER BY y.seq LIMIT v_most FOR UPDATE SKIP LOCKED
                ),
                gone AS (
                    DELETE FROM penstock.ready y WHERE y.ctid = ANY (ARRAY(SELECT k.at FROM locked k WHERE NOT k.over))
                )
                SELECT array_agg(k.id) FILTER (WHERE NOT over), array_agg(k.id) FILTER (WHERE over), bool_or(k.cancel),
                    array_fill(l_runner[1], ARRAY[count(*) FILTER (WHERE NOT over)::integer]),
                    ARRAY[greatest(l_from[1], max(k.seq), CASE WHEN count(*) < v_most THEN v_mark END)], count(*)
                INTO t_id, v_expired, t_cancel, t_runner, l_from, v_found
                FROM locked k;
            ELSE
                SELECT array_agg(o.line), array_agg(o.seq), array_agg(o.runner) INTO f_line, f_seq, f_runner
                FROM (
                    SELECT h.line, h.seq, h.runner FROM (
                        SELECT e.line, e.runner, e.place, e.rank, r.seq,
                            row_number() OVER (PARTITION BY e.runner ORDER BY e.place, e.rank, r.seq) AS nth
                        FROM unnest(l_line, l_runner, l_group, l_rank, l_from) AS e(line, runner, place, rank, after)
                        CROSS JOIN LATERAL (
                            SELECT y.seq FROM penstock.ready y WHERE y.line = e.line AND y.seq > e.after
                            ORDER BY y.seq LIMIT least(v_left, v_free[e.runner])
                        ) r
                    ) h WHERE h.nth <= v_free[h.runner] ORDER BY h.place, h.rank, h.seq LIMIT v_left
                ) o;
                WITH locked AS MATERIALIZED (
                    SELECT y.ctid AS at, y.id, y.cancel, f.runner, f.place,
                        y.expires_ms IS NOT NULL AND y.expires_ms <= v_now AS over
                    FROM unnest(f_line, f_seq, f_runner) WITH ORDINALITY AS f(line, seq, runner, place)
                    JOIN penstock.ready y ON y.line = f.line AND y.seq = f.seq FOR UPDATE OF y SKIP LOCKED
                ),
                gone AS (
                    DELETE FROM penstock.ready y WHERE y.ctid = ANY (ARRAY(SELECT k.at FROM locked k WHERE NOT k.over))
                )
                SELECT array_agg(k.id ORDER BY k.place) FILTER (WHERE NOT over), array_agg(k.id) FILTER (WHERE over),
                    bool_or(k.cancel), array_agg(k.runner) FILTER (WHERE NOT over), coalesce(cardinality(f_line), 0)
                INTO t_id, v_expired, t_cancel, t_runner, v_found
                FROM locked k;
                -- How far each line was seen: to its last job that was looked at, or to the mark where there was no more.
                SELECT array_agg(CASE WHEN v_found < v_left AND coalesce(n.count, 0) < v_free[e.runner]
                        THEN greatest(v_mark, e.after, coalesce(m.seq, 0)) ELSE greatest(e.after, coalesce(m.seq, 0)) END
                    ORDER BY e.place)
                INTO l_from
                FROM unnest(l_line, l_runner, l_from) WITH ORDINALITY AS e(line, runner, after, place)
                LEFT JOIN (SELECT x.line, max(x.seq) AS seq FROM unnest(f_line, f_seq) x(line, seq) GROUP BY x.line) m
                    ON m.line = e.line
                LEFT JOIN (SELECT x.runner, count(*) AS count FROM unnest(f_runner) x(runner) GROUP BY x.runner) n
                    ON n.runner = e.runner;
            END IF;
            v_count := coalesce(cardinality(t_id), 0);
            IF v_count > 0 THEN
                RETURN QUERY
                WITH mine AS MATERIALIZED (
                    SELECT j.line, j.seq, j.id, j.claims, j.policy, j.crc, j.created_ms, j.stage, j.cancel, j.keyed,
                        j.details, j.counters, j.envelope, uuid_hash_extended(v_random, g.place) AS token, g.place
                    FROM unnest(t_id) WITH ORDINALITY AS g(id, place) JOIN penstock.jobs j ON j.id = g.id
                ),
                held AS (
                    INSERT INTO penstock.claims (token, claimed_ms, beat, process, number, line, keyed, id)
                    SELECT m.token, v_now, p_beat, p.process, m.claims + 1, m.line, m.keyed, m.id FROM mine m
                ),
                freed AS (
                    DELETE FROM penstock.uniques u USING mine m WHERE m.keyed AND u.id = m.id AND u.until = 'started'
                ),
                tallied AS (
                    INSERT INTO penstock.deltas (slot, line, ready, running)
                    SELECT penstock.slot(), m.line, -count(*), count(*) FROM mine m GROUP BY m.line
                )
                SELECT m.line, m.seq, m.id, m.claims + 1, m.token, m.policy, m.crc, m.created_ms, m.stage, m.cancel,
                    m.details, m.counters, m.envelope
                FROM mine m ORDER BY m.place;
                v_claimed := v_claimed + v_count;
                v_cancels := v_cancels OR t_cancel;
            END IF;
            IF v_expired IS NOT NULL THEN
                PERFORM penstock.end_waiting(v_expired, 'expired', NULL, v_now);
                v_over := v_over + cardinality(v_expired);
            END IF;
            EXIT WHEN v_found = v_count OR v_over >= 1000;
            v_left := v_left - v_count;
            SELECT array_agg(x.free - coalesce(n.count, 0) ORDER BY x.place) INTO v_free
            FROM unnest(v_free) WITH ORDINALITY AS x(free, place)
            LEFT JOIN (SELECT y.runner, count(*) AS count FROM unnest(t_runner) y(runner) GROUP BY y.runner) n
                ON n.runner = x.place;
        END LOOP;
        IF v_over >= 1000 THEN
            v_mark := v_mark - 1;
        END IF;
    END IF;
    IF v_cancels THEN
        SELECT coalesce(json_agg(json_build_array(c.number, c.token)), '[]') INTO v_asked
        FROM penstock.jobs j JOIN penstock.claims c ON c.id = j.id WHERE j.cancel AND c.process = p.process;
        v_cancels := json_array_length(v_asked) > 0;
    END IF;
    v_remembered := coalesce(p.beat, 0);
    IF p_beat IS DISTINCT FROM p.beat THEN
        IF v_claimed > 0 OR cardinality(c_ids) > 0 OR p_part = 2 THEN
            v_remembered := p_beat;
            INSERT INTO penstock.beats (beat, mark, process, late)
            VALUES (p_beat, v_mark, p.process, CASE WHEN cardinality(v_late) > 0 THEN v_late END);
            IF p.beat IS NOT NULL THEN
                DELETE FROM penstock.beats b WHERE b.process = p.process AND b.beat = p.beat;
            END IF;
            IF p.steer OR v_cancels <> p.cancels THEN
                UPDATE penstock.processes s SET steer = false, cancels = v_cancels WHERE s.process = p.process;
            END IF;
        ELSIF p.steer THEN
            UPDATE penstock.processes s SET steer = false WHERE s.process = p.process;
        END IF;
    END IF;
    line := NULL;
    envelope := convert_to(json_build_object('late', v_late, 'cancels', v_asked, 'drain', p.drain, 'now_ms', v_now,
        'mark', v_mark, 'process', p.process, 'beat', v_remembered, 'lines', coalesce(l_line, '{}'), 'seqs', coalesce(l_from, '{}'))::text, 'UTF8');
    RETURN NEXT;
END $$;

-- Time -----------------------------------------------------------------------------------------------------------------

-- Make scheduled jobs ready, in the order given.
CREATE FUNCTION penstock.line_up(p_ids text[], p_now bigint) RETURNS integer LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_count integer;
BEGIN
    WITH due AS MATERIALIZED (
        SELECT g.id, nextval('penstock.ready_seq') AS seq
        FROM (SELECT u.id FROM unnest(p_ids) WITH ORDINALITY AS u(id, place) ORDER BY u.place) g
    ),
    moved AS (
        UPDATE penstock.jobs j SET due_ms = NULL, seq = d.seq FROM due d WHERE j.id = d.id AND j.due_ms IS NOT NULL
        RETURNING j.id, j.line, j.seq, j.cancel, CASE WHEN NOT j.started THEN j.expires_ms END AS expires_ms
    ),
    put AS (
        INSERT INTO penstock.ready (line, seq, since_ms, expires_ms, cancel, id)
        SELECT line, seq, p_now, expires_ms, cancel, id FROM moved
    ),
    tallied AS (
        INSERT INTO penstock.deltas (slot, line, scheduled, ready)
        SELECT penstock.slot(), line, -count(*), count(*) FROM moved GROUP BY line
    )
    SELECT count(*) INTO v_count FROM moved;
    IF v_count > 0 THEN
        PERFORM penstock.ring(1);
    END IF;
    RETURN v_count;
END $$;

-- Bring those of the jobs that stand in the draft of a line into the line proper.
CREATE FUNCTION penstock.leave_draft(p_line integer, p_ids text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_line integer := penstock.line_like(p_line, false);
BEGIN
    WITH moved AS (UPDATE penstock.jobs SET line = v_line WHERE id = ANY (p_ids) AND line = p_line RETURNING line)
    INSERT INTO penstock.deltas (slot, line, scheduled)
    SELECT penstock.slot(), x.line, x.sign * n.count
    FROM (SELECT count(*) AS count FROM moved) n, (VALUES (p_line, -1), (v_line, 1)) x(line, sign);
END $$;

-- Whether the holder of a unique key is locked by another transaction. If not, this one locks it.
CREATE FUNCTION penstock.is_held_up(p_digest bytea) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_holder text;
BEGIN
    SELECT id INTO v_holder FROM penstock.uniques WHERE digest = p_digest;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM FROM penstock.uniques WHERE digest = p_digest FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        PERFORM FROM penstock.jobs WHERE id = v_holder FOR UPDATE SKIP LOCKED;
    END IF;
    RETURN NOT FOUND AND EXISTS (SELECT FROM penstock.jobs WHERE id = v_holder);
END $$;

-- Take over what committed transactions of the application have stored: those that wait for no later time become ready,
-- and those that were to replace another do so now. One whose key a transaction holds that is still open is passed over
-- until the next time. Where that key cannot be seen yet, to find it out takes a moment, which only so many of them get.
CREATE FUNCTION penstock.receive(p_limit integer, p_now bigint) RETURNS integer LANGUAGE plpgsql
SET enable_seqscan = off SET jit = off SET lock_timeout = '50ms' AS $$
DECLARE
    a penstock.arrivals;
    v_holder text;
    v_ids text[] := '{}';
    v_lines integer[] := '{}';
    v_waits integer := 0;
    v_passed integer := 0;
    v_count integer := 0;
BEGIN
    FOR a IN SELECT * FROM penstock.arrivals ORDER BY arrival FOR UPDATE SKIP LOCKED LOOP
        EXIT WHEN v_count >= p_limit OR v_passed >= 10 * p_limit;
        v_holder := NULL;
        IF a.uniqueness IS NOT NULL AND EXISTS (SELECT FROM penstock.jobs WHERE id = a.id) THEN
            IF v_waits >= 20 OR penstock.is_held_up(a.uniqueness) THEN
                v_passed := v_passed + 1;
                CONTINUE;
            END IF;
            BEGIN
                PERFORM set_config('lock_timeout', '2ms', true);
                v_holder := penstock.hold_unique(a.uniqueness, a.id, a.until, a.window_ms, 'replace', p_now);
                PERFORM set_config('lock_timeout', '50ms', true);
            EXCEPTION WHEN lock_not_available THEN
                v_waits := v_waits + 1;
                v_passed := v_passed + 1;
                CONTINUE;
            END;
        END IF;
        v_count := v_count + 1;
        DELETE FROM penstock.arrivals WHERE arrival = a.arrival AND slot = a.slot;
        v_lines := v_lines || a.line;
        IF v_holder IS NULL THEN
            v_ids := v_ids || a.id;
        ELSE
            PERFORM penstock.end_waiting(ARRAY[a.id], 'cancelled', convert_to(json_build_object('kind', 'cancelled',
                'message', 'job ' || v_holder || ' held its unique key when it arrived')::text, 'UTF8'), p_now);
        END IF;
    END LOOP;
    IF v_count > 0 THEN
        INSERT INTO penstock.deltas (slot, line, scheduled)
        SELECT penstock.slot(), l.line, count(*) FROM unnest(v_lines) l(line) GROUP BY l.line;
        PERFORM penstock.leave_draft(d.line, v_ids)
        FROM penstock.lines d WHERE d.line = ANY (v_lines) AND d.draft IS NOT NULL;
        SELECT array_agg(u.id ORDER BY u.place) INTO v_ids
        FROM unnest(v_ids) WITH ORDINALITY AS u(id, place) JOIN penstock.jobs j ON j.id = u.id
        WHERE j.due_ms <= p_now;
        PERFORM penstock.line_up(v_ids, p_now);
    END IF;
    RETURN v_count;
END $$;

-- From other languages --------------------------------------------------------------------------------------------------

-- A UUIDv7 as text: 48 bits of ms since the epoch, then random bits (RFC 9562, section 5.7).
CREATE FUNCTION penstock.new_id() RETURNS text LANGUAGE sql VOLATILE AS $$
SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
    PLACING substring(int8send(penstock.now_ms()) FROM 3) FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid::text
$$;

-- Enqueue with plain SQL, from any language or trigger, inside the transaction at hand: the job runs after its commit.
-- Answers its id, or that of the job that stands in for it.
--
-- task: the name by which workers know it. args: a JSON array of positional arguments, or an object of named ones.
-- unique_key: at most one unfinished job of the task has it. idempotency_key: the same key gives the same job.
CREATE FUNCTION penstock.enqueue(
    queue text, task text, args jsonb DEFAULT '[]', priority integer DEFAULT 0, delay interval DEFAULT '0',
    run_at timestamptz DEFAULT NULL, expires_in interval DEFAULT NULL, unique_key text DEFAULT NULL,
    idempotency_key text DEFAULT NULL, tags text[] DEFAULT NULL
) RETURNS text LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    v_line integer;
    v_transaction bigint := pg_current_xact_id()::text::bigint;
    v_policy integer;
    v_unique text := task || ':' || unique_key;
    v_details jsonb;
    v_envelope jsonb := jsonb_build_object('v', 1, 'task', task);
    v_answer record;
BEGIN
    -- IS NOT TRUE, so that NULL is refused too: what no worker can read would stop all of them.
    IF (queue ~ '^[A-Za-z0-9_.-]{1,128}$') IS NOT TRUE THEN
        RAISE invalid_parameter_value USING MESSAGE = format('%L is no name of a queue', queue),
            HINT = 'Use 1 to 128 of the characters A-Z a-z 0-9 _ . -';
    ELSIF (task <> '') IS NOT TRUE THEN
        RAISE invalid_parameter_value USING MESSAGE = format('%L is no name of a task', task),
            HINT = 'Give text that is not empty, such as shop.send_receipt.';
    ELSIF (priority BETWEEN -100 AND 100) IS NOT TRUE THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('The priority %s is outside -100 to 100', coalesce(priority::text, 'NULL'));
    ELSIF delay < '0' THEN
        RAISE invalid_parameter_value USING MESSAGE = format('The delay %s is below 0', delay);
    ELSIF (jsonb_typeof(args) IN ('array', 'object')) IS NOT TRUE THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('The arguments %s are no JSON array or object', coalesce(args::text, 'NULL'));
    ELSIF array_ndims(tags) > 1 OR array_position(tags, NULL) IS NOT NULL OR '' = ANY (tags) THEN
        RAISE invalid_parameter_value USING MESSAGE = format('The tags %s are no list of texts', tags),
            HINT = 'Give texts that are not empty, such as ARRAY[''eu''].';
    ELSIF '' IN (unique_key, idempotency_key) THEN
        RAISE invalid_parameter_value USING MESSAGE = 'An empty text is no key', HINT = 'Give NULL for no key.';
    END IF;
    v_envelope := v_envelope || CASE jsonb_typeof(args) WHEN 'array' THEN jsonb_build_object('args', args)
        ELSE jsonb_build_object('kwargs', args) END;
    v_details := jsonb_strip_nulls(jsonb_build_object('idempotency_key', idempotency_key, 'tags', to_jsonb(tags),
        'unique', CASE WHEN unique_key IS NOT NULL THEN jsonb_build_object('key', v_unique) END));
    SELECT l.line INTO v_line FROM penstock.lines l WHERE l.queue = enqueue.queue AND md5(l.task) = md5(enqueue.task)
        AND md5(l.fair_key) = md5('') AND NOT l.alone AND l.rank = -enqueue.priority AND l.draft IS NULL;
    IF v_line IS NULL THEN
        SELECT l.line INTO v_line FROM penstock.lines l WHERE l.draft = v_transaction AND l.queue = enqueue.queue
            AND l.task = enqueue.task AND l.rank = -enqueue.priority;
    END IF;
    IF v_line IS NULL THEN
        INSERT INTO penstock.lines (queue, task, fair_key, alone, rank, draft)
        VALUES (queue, task, '', false, -priority, v_transaction) RETURNING line INTO v_line;
    END IF;
    SELECT p.policy INTO v_policy FROM penstock.policies p ORDER BY p.policy LIMIT 1;
    SELECT * INTO v_answer FROM penstock.add_each('4s', NULL, true, true, ARRAY[1], '{}', '{}', '{}', ARRAY[penstock.new_id()],
        ARRAY[v_line], ARRAY[v_policy], '{}', ARRAY[(extract(epoch FROM delay) * 1000)::bigint],
        ARRAY[(extract(epoch FROM run_at) * 1000)::bigint], '{}', ARRAY[(extract(epoch FROM expires_in) * 1000)::bigint],
        ARRAY[sha256(convert_to(idempotency_key, 'UTF8'))], ARRAY[sha256(convert_to(v_unique, 'UTF8'))], ARRAY['ended'],
        ARRAY[0::bigint], ARRAY['keep'],
        ARRAY[CASE WHEN v_details <> '{}' THEN convert_to(v_details::text, 'UTF8') END],
        ARRAY[convert_to(v_envelope::text, 'UTF8')]);
    IF v_answer.code = 5 THEN
        RAISE configuration_limit_exceeded USING MESSAGE = format('Queue %s is full (%s jobs)', queue, v_answer.bound),
            HINT = 'Try again later, add workers, or raise its limit with `penstock queues limit`.';
    ELSIF v_answer.code > 1 THEN
        RAISE unique_violation USING MESSAGE = format('The idempotency key %L belongs to job %s, which has other content',
            idempotency_key, v_answer.holder), HINT = 'Use another key.';
    END IF;
    RETURN v_answer.holder;
END $$;

-- Forget ended jobs with all that lives as long as they do.
CREATE FUNCTION penstock.forget(p_ids text[]) RETURNS integer LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_count integer;
BEGIN
    WITH gone AS (DELETE FROM penstock.ended WHERE id = ANY (p_ids) RETURNING line, state),
    tallied AS (
        INSERT INTO penstock.deltas (slot, line, succeeded, cancelled, expired, buried)
        SELECT penstock.slot(), line, -count(*) FILTER (WHERE state = 'succeeded'),
            -count(*) FILTER (WHERE state = 'cancelled'), -count(*) FILTER (WHERE state = 'expired'),
            -count(*) FILTER (WHERE state = 'buried')
        FROM gone GROUP BY line
    )
    SELECT count(*) INTO v_count FROM gone;
    DELETE FROM penstock.logs WHERE id = ANY (p_ids);
    DELETE FROM penstock.keys WHERE id = ANY (p_ids);
    DELETE FROM penstock.ledger WHERE id = ANY (p_ids) AND until_ms IS NULL;
    RETURN v_count;
END $$;

-- Add a past slot of deltas to the totals, unless someone writes or reads there now.
CREATE FUNCTION penstock.fold() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_slot integer := (penstock.slot() + 1) % 3;
BEGIN
    IF v_slot = 0 AND NOT EXISTS (SELECT FROM penstock.deltas_0) OR v_slot = 1 AND NOT EXISTS (SELECT FROM penstock.deltas_1)
        OR v_slot = 2 AND NOT EXISTS (SELECT FROM penstock.deltas_2)
    THEN
        RETURN;
    END IF;
    EXECUTE format('LOCK TABLE ONLY penstock.deltas_%s IN ACCESS EXCLUSIVE MODE NOWAIT', v_slot);
    INSERT INTO penstock.totals AS t
    SELECT line, sum(scheduled), sum(ready), sum(running), sum(succeeded), sum(cancelled), sum(expired), sum(buried),
        sum(finished), sum(late)
    FROM penstock.deltas WHERE slot = v_slot GROUP BY line
    ON CONFLICT (line) DO UPDATE SET scheduled = t.scheduled + excluded.scheduled, ready = t.ready + excluded.ready,
        running = t.running + excluded.running, succeeded = t.succeeded + excluded.succeeded,
        cancelled = t.cancelled + excluded.cancelled, expired = t.expired + excluded.expired,
        buried = t.buried + excluded.buried, finished = t.finished + excluded.finished, late = t.late + excluded.late;
    -- Who may not truncate deletes, and leaves the rows where they are while an old transaction is open.
    EXECUTE format(CASE WHEN has_table_privilege(format('penstock.deltas_%s', v_slot), 'TRUNCATE')
        THEN 'TRUNCATE ONLY penstock.deltas_%s' ELSE 'DELETE FROM ONLY penstock.deltas_%s' END, v_slot);
EXCEPTION WHEN lock_not_available THEN
    RETURN;
END $$;

-- Truncate a past slot of arrivals that have all been received, unless someone writes or reads there now: the next search
-- would walk over those that an old transaction keeps from being removed.
CREATE FUNCTION penstock.sweep_arrivals() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_name text := format('penstock.arrivals_%s', (penstock.slot() + 1) % 3);
    v_left boolean;
BEGIN
    IF pg_relation_size(v_name) = 0 OR NOT has_table_privilege(v_name, 'TRUNCATE') THEN
        RETURN;
    END IF;
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE NOWAIT', v_name);
    EXECUTE format('SELECT EXISTS (SELECT FROM ONLY %s)', v_name) INTO v_left;
    IF NOT v_left THEN
        EXECUTE format('TRUNCATE ONLY %s', v_name);
    END IF;
EXCEPTION WHEN lock_not_available THEN
    RETURN;
END $$;

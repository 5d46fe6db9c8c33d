-- The tables. The name `penstock.` stands for the schema that `?schema=` names. Times are ms since the epoch by the
-- server's clock. A job's state is where it stands: due_ms set = scheduled; in `ready` = ready; in `claims` = running;
-- in `ended` = the state named there.
--
-- A row that was deleted stays where it is while any transaction is older than the deletion, and a search that begins
-- at such rows walks over all of them. So nothing that a claim touches has many versions, and no search of a claim begins
-- at a dead head: rows are inserted and deleted, not updated, and each engine remembers how far a line was seen.

-- What the store is. identity: the cluster, timeline and database it stands in, and this table's number there; the epoch
-- changes with it.
CREATE TABLE penstock.meta (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch text NOT NULL,
    identity text NOT NULL,
    created_ms bigint NOT NULL
);

-- Jobs that are eligible together and have one priority (rank is the negated priority) stand in one line. draft: the
-- transaction of the application that made it, so as not to wait for another that makes the same line; its jobs go to the
-- line proper when they are received, and are never claimed from here.
CREATE TABLE penstock.lines (
    line integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text COLLATE "C" NOT NULL,
    task text COLLATE "C" NOT NULL,
    fair_key text COLLATE "C" NOT NULL,
    alone boolean NOT NULL,
    rank smallint NOT NULL,
    draft bigint
);
CREATE UNIQUE INDEX lines_key ON penstock.lines (queue, md5(task), md5(fair_key), alone, rank) WHERE draft IS NULL;
CREATE INDEX lines_draft ON penstock.lines (draft) WHERE draft IS NOT NULL;

-- Switches of a queue.
CREATE TABLE penstock.queues (
    queue text COLLATE "C" PRIMARY KEY,
    paused boolean NOT NULL DEFAULT false,
    max_jobs bigint
);

-- What is measured of a queue: finished at a past time, for the rate; swept: of its ends none that is forgotten one day is
-- earlier.
CREATE TABLE penstock.samples (
    queue text COLLATE "C" PRIMARY KEY,
    sampled_ms bigint,
    sampled_finished bigint NOT NULL DEFAULT 0,
    rate double precision NOT NULL DEFAULT 0,
    swept bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE penstock.policies (
    policy integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    keep_ms bigint NOT NULL,
    body bytea NOT NULL
);
CREATE UNIQUE INDEX policies_body ON penstock.policies (md5(body));

-- Drawn by each job that becomes ready.
CREATE SEQUENCE penstock.ready_seq;

-- Unfinished jobs. seq: its place in `ready`; started: an attempt was charged, so expires_ms is over; forgiven: kicked
-- since its last error; keyed: it may hold keys. Inserted and deleted; updated only when a job comes back or is changed
-- by hand.
CREATE TABLE penstock.jobs (
    id text COLLATE "C" PRIMARY KEY,
    seq bigint,
    created_ms bigint NOT NULL,
    due_ms bigint,
    expires_ms bigint,
    claimed_ms bigint,
    ran_us bigint NOT NULL DEFAULT 0,
    crc bigint,
    line integer NOT NULL,
    policy integer NOT NULL,
    claims integer NOT NULL DEFAULT 0,
    stage integer NOT NULL DEFAULT 0,
    cancel boolean NOT NULL DEFAULT false,
    started boolean NOT NULL DEFAULT false,
    forgiven boolean NOT NULL DEFAULT false,
    keyed boolean NOT NULL DEFAULT false,
    process text,
    counters bytea,
    details bytea,
    progress bytea,
    history bytea[],
    envelope bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.5, autovacuum_analyze_threshold = 50000);
CREATE INDEX jobs_due ON penstock.jobs (due_ms, id) WHERE due_ms IS NOT NULL;
CREATE INDEX jobs_expires ON penstock.jobs (expires_ms, id) WHERE expires_ms IS NOT NULL AND NOT started;
CREATE INDEX jobs_cancel ON penstock.jobs (id) WHERE cancel;

-- Ready jobs in the order in which they are claimed, with what a claim must know before it takes them: the deadline of
-- an unstarted one, and whether it was asked to stop. Written by short transactions only.
CREATE TABLE penstock.ready (
    seq bigint NOT NULL,
    since_ms bigint NOT NULL,
    expires_ms bigint,
    line integer NOT NULL,
    cancel boolean NOT NULL DEFAULT false,
    id text COLLATE "C" NOT NULL,
    PRIMARY KEY (line, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 1, autovacuum_analyze_threshold = 50000);

-- Running jobs with their fence, the process that holds them and the beat with which it took them (0: taken over).
-- fate: what a takeover knew of the end (see engine.Taken). Each claim would pay for an index by process; who looks for the
-- claims of a process, which is rare (it died, an answer was lost), reads them all.
CREATE TABLE penstock.claims (
    token bigint NOT NULL,
    claimed_ms bigint NOT NULL,
    beat bigint NOT NULL,
    process integer NOT NULL,
    number integer NOT NULL,
    line integer NOT NULL,
    keyed boolean NOT NULL,
    id text COLLATE "C" PRIMARY KEY,
    fate text
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 1, autovacuum_analyze_threshold = 50000);

-- Processes with a lease. steer: it was not told yet of a cancel or drain; cancels: some of its running jobs may have been
-- asked to stop; void: its claims are being handed on.
CREATE TABLE penstock.processes (
    process integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    worker text COLLATE "C" NOT NULL,
    lease_ms bigint NOT NULL,
    steer boolean NOT NULL DEFAULT false,
    cancels boolean NOT NULL DEFAULT false,
    void boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- Until when a lease holds, on the steady clock of `boot` (the server's own clock: one boot for ever).
CREATE TABLE penstock.leases (
    process integer PRIMARY KEY,
    until_ms bigint NOT NULL,
    boot text NOT NULL
) WITH (fillfactor = 50);

-- The last exchange of a process that is remembered: which ids were late, the mark it was answered with. A new row for
-- each, found from the newest backwards.
CREATE TABLE penstock.beats (
    beat bigint NOT NULL,
    mark bigint NOT NULL,
    process integer NOT NULL,
    late text[],
    PRIMARY KEY (process, beat)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE penstock.workers (
    worker text COLLATE "C" PRIMARY KEY,
    info bytea NOT NULL,
    enrolled_ms bigint NOT NULL,
    drain boolean NOT NULL DEFAULT false
);

-- Keys that at most one live job holds, by digest, because an index takes no long text; free_ms is set for windows only.
CREATE TABLE penstock.uniques (
    digest bytea PRIMARY KEY,
    free_ms bigint,
    until text NOT NULL,
    id text COLLATE "C" NOT NULL
);
CREATE INDEX uniques_id ON penstock.uniques (id);
CREATE INDEX uniques_free ON penstock.uniques (free_ms) WHERE free_ms IS NOT NULL;

-- Idempotency keys, by digest, as long as their job is stored.
CREATE TABLE penstock.keys (
    digest bytea PRIMARY KEY,
    id text COLLATE "C" NOT NULL
);
CREATE INDEX keys_id ON penstock.keys (id);

-- Ended jobs. forget_ms is NULL for buried ones, which are kept until a person acts.
CREATE TABLE penstock.ended (
    created_ms bigint NOT NULL,
    ended_ms bigint NOT NULL,
    forget_ms bigint,
    expires_ms bigint,
    claimed_ms bigint,
    ran_us bigint NOT NULL,
    crc bigint,
    line integer NOT NULL,
    policy integer NOT NULL,
    claims integer NOT NULL,
    stage integer NOT NULL,
    forgiven boolean NOT NULL,
    keyed boolean NOT NULL,
    id text COLLATE "C" PRIMARY KEY,
    state text NOT NULL,
    process text,
    degraded text,
    counters bytea,
    details bytea,
    progress bytea,
    history bytea[],
    result bytea,
    envelope bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 20000,
    autovacuum_analyze_scale_factor = 0.5, autovacuum_analyze_threshold = 50000);
CREATE INDEX ended_forget ON penstock.ended (forget_ms) WHERE forget_ms IS NOT NULL;
CREATE INDEX ended_order ON penstock.ended (ended_ms) WHERE forget_ms IS NOT NULL;
CREATE INDEX ended_buried ON penstock.ended (id) WHERE forget_ms IS NULL;

-- Log text per attempt, as long as the job is stored; bytes, because PostgreSQL's text takes no NUL.
CREATE TABLE penstock.logs (
    attempt integer NOT NULL,
    id text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (id, attempt)
);

-- Side effects: begun under a claim, done with a value. Without until_ms an entry lives as long as its job.
CREATE TABLE penstock.ledger (
    digest bytea PRIMARY KEY,
    token bigint NOT NULL,
    until_ms bigint,
    number integer NOT NULL,
    id text COLLATE "C" NOT NULL,
    value bytea
);
CREATE INDEX ledger_until ON penstock.ledger (until_ms) WHERE until_ms IS NOT NULL;
CREATE INDEX ledger_job ON penstock.ledger (id) WHERE until_ms IS NULL;

-- Jobs that were stored inside a transaction of the application, scheduled for at once: `ready` takes rows of short
-- transactions only. uniqueness: the key of a job that it will replace when `tend` or an exchange receives it. Each counts
-- as one scheduled job of its line until it is received. Each stands in the slot of its ten seconds; `tend` truncates a past
-- slot in which none is left and no transaction is open that added there.
CREATE TABLE penstock.arrivals (
    arrival bigint GENERATED ALWAYS AS IDENTITY,
    window_ms bigint,
    line integer NOT NULL,
    slot smallint NOT NULL,
    id text COLLATE "C" NOT NULL,
    uniqueness bytea,
    until text,
    PRIMARY KEY (arrival, slot)
) PARTITION BY LIST (slot);
CREATE INDEX arrivals_id ON penstock.arrivals (id);
CREATE INDEX arrivals_line ON penstock.arrivals (line);
CREATE TABLE penstock.arrivals_0 PARTITION OF penstock.arrivals FOR VALUES IN (0);
CREATE TABLE penstock.arrivals_1 PARTITION OF penstock.arrivals FOR VALUES IN (1);
CREATE TABLE penstock.arrivals_2 PARTITION OF penstock.arrivals FOR VALUES IN (2);

-- Counts by line and state are the sum of `totals`, of all deltas and of the arrivals. Each transaction appends what it
-- changed to the slot of its ten seconds; `tend` adds a past slot to the totals and truncates it, which no old transaction
-- can hinder as it hinders the removal of deleted rows. Transactions of the application, which may be long, append
-- arrivals only. finished counts ends and never falls. Line 0: late results.
CREATE TABLE penstock.totals (
    line integer PRIMARY KEY,
    scheduled bigint NOT NULL,
    ready bigint NOT NULL,
    running bigint NOT NULL,
    succeeded bigint NOT NULL,
    cancelled bigint NOT NULL,
    expired bigint NOT NULL,
    buried bigint NOT NULL,
    finished bigint NOT NULL,
    late bigint NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE penstock.deltas (
    slot smallint NOT NULL,
    line integer NOT NULL,
    scheduled integer NOT NULL DEFAULT 0,
    ready integer NOT NULL DEFAULT 0,
    running integer NOT NULL DEFAULT 0,
    succeeded integer NOT NULL DEFAULT 0,
    cancelled integer NOT NULL DEFAULT 0,
    expired integer NOT NULL DEFAULT 0,
    buried integer NOT NULL DEFAULT 0,
    finished integer NOT NULL DEFAULT 0,
    late integer NOT NULL DEFAULT 0
) PARTITION BY LIST (slot);
CREATE TABLE penstock.deltas_0 PARTITION OF penstock.deltas FOR VALUES IN (0) WITH (autovacuum_enabled = false);
CREATE TABLE penstock.deltas_1 PARTITION OF penstock.deltas FOR VALUES IN (1) WITH (autovacuum_enabled = false);
CREATE TABLE penstock.deltas_2 PARTITION OF penstock.deltas FOR VALUES IN (2) WITH (autovacuum_enabled = false);

CREATE VIEW penstock.counted AS
    SELECT line, sum(scheduled)::bigint AS scheduled, sum(ready)::bigint AS ready, sum(running)::bigint AS running,
        sum(succeeded)::bigint AS succeeded, sum(cancelled)::bigint AS cancelled, sum(expired)::bigint AS expired,
        sum(buried)::bigint AS buried, sum(finished)::bigint AS finished, sum(late)::bigint AS late
    FROM (
        SELECT line, scheduled, ready, running, succeeded, cancelled, expired, buried, finished, late
        FROM penstock.totals
        UNION ALL
        SELECT line, scheduled, ready, running, succeeded, cancelled, expired, buried, finished, late
        FROM penstock.deltas
        UNION ALL
        SELECT line, 1, 0, 0, 0, 0, 0, 0, 0, 0 FROM penstock.arrivals
    ) every
    GROUP BY line;

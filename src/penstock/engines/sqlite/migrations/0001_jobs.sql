-- The first schema. Times are ms since the epoch (wall clock) unless named steady.
-- Hot: jobs, ready, claims hold unfinished jobs only, so their size is the backlog's, never history's.
-- A job's state is where it stands, written once: due_ms set = scheduled; in `ready` = ready; in `claims` = running;
-- in `ended` = the state named there.

-- One row: what the store is. The epoch changes when the file was copied or restored, which the inode tells.
CREATE TABLE meta (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    epoch TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    inode INTEGER NOT NULL
);

-- Every number that transactions change, together so that they touch one page.
-- lane > 0: its jobs by state (see step.py for the codes of states); finished counts ends and never falls, the drain
-- rate is read from it. lane 0: seq, drawn by each job that becomes ready; ended, drawn by each that ends; late results
-- refused; queues with a bound.
CREATE TABLE counters (
    lane INTEGER NOT NULL,
    what INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (lane, what)
) WITHOUT ROWID;

-- A line of ready jobs that are eligible together; forgotten with its last job. Its number is never given again, because
-- other processes remember it.
CREATE TABLE lanes (
    lane INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    task TEXT NOT NULL,
    fair_key TEXT NOT NULL,
    alone INTEGER NOT NULL,
    UNIQUE (queue, task, fair_key, alone)
);

-- Switches of a queue; sampled_*: a past value of finished, for the rate; swept: no kept end of it lies below.
CREATE TABLE queues (
    queue TEXT PRIMARY KEY,
    paused INTEGER NOT NULL DEFAULT 0,
    max_jobs INTEGER,
    sampled_ms INTEGER,
    sampled_finished INTEGER NOT NULL DEFAULT 0,
    rate REAL NOT NULL DEFAULT 0,
    swept INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE policies (
    policy INTEGER PRIMARY KEY,
    body BLOB NOT NULL UNIQUE
);

-- Unfinished jobs. seq is its place in `ready`; started: an attempt was charged, so expires_ms is over;
-- forgiven: kicked since its last error. The envelope stands last, so that the rest is read without it.
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    lane INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    policy INTEGER NOT NULL,
    crc INTEGER,
    created_ms INTEGER NOT NULL,
    due_ms INTEGER,
    expires_ms INTEGER,
    details BLOB,
    envelope BLOB NOT NULL,
    claims INTEGER NOT NULL DEFAULT 0,
    stage INTEGER NOT NULL DEFAULT 0,
    cancel INTEGER NOT NULL DEFAULT 0,
    started INTEGER NOT NULL DEFAULT 0,
    counters BLOB,
    claimed_ms INTEGER,
    ran_us INTEGER NOT NULL DEFAULT 0,
    process TEXT,
    progress BLOB,
    history BLOB,
    forgiven INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX jobs_due ON jobs (due_ms, id) WHERE due_ms IS NOT NULL;
CREATE INDEX jobs_expires ON jobs (expires_ms) WHERE expires_ms IS NOT NULL AND started = 0;

-- Ready jobs in the order in which they are claimed; rank is the negated priority, since_ms when it took its place.
CREATE TABLE ready (
    lane INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    id TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    PRIMARY KEY (lane, rank, seq)
) WITHOUT ROWID;

-- Running jobs by the random token of their fence, with what is needed to end or requeue them without reading `jobs`;
-- keyed: it may hold a unique key. fate: what a takeover knew of the end (see engine.Taken).
CREATE TABLE claims (
    token INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    number INTEGER NOT NULL,
    process INTEGER NOT NULL,
    beat INTEGER NOT NULL,
    claimed_ms INTEGER NOT NULL,
    lane INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    policy INTEGER NOT NULL,
    keyed INTEGER NOT NULL,
    fate TEXT
);

-- Leases. until_steady_ms counts on the clock of `boot`; late: ids refused by the last exchange;
-- mark: the seq it was answered with; steer: it was not told yet of a cancel or drain; cancels: some of its running jobs
-- may have been asked to stop; void: its claims are being handed on.
CREATE TABLE processes (
    process INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    worker TEXT NOT NULL,
    lease_ms INTEGER NOT NULL,
    until_steady_ms INTEGER NOT NULL,
    boot TEXT NOT NULL,
    beat INTEGER NOT NULL DEFAULT 0,
    late BLOB,
    mark INTEGER NOT NULL DEFAULT 0,
    steer INTEGER NOT NULL DEFAULT 0,
    cancels INTEGER NOT NULL DEFAULT 0,
    void INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE workers (
    worker TEXT PRIMARY KEY,
    info BLOB NOT NULL,
    enrolled_ms INTEGER NOT NULL,
    drain INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- Keys that at most one live job holds; free_ms is set for windows only.
CREATE TABLE uniques (
    key TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    free_ms INTEGER
) WITHOUT ROWID;
CREATE INDEX uniques_free ON uniques (free_ms) WHERE free_ms IS NOT NULL;

-- Idempotency keys, as long as their job is stored.
CREATE TABLE keys (
    key TEXT PRIMARY KEY,
    id TEXT NOT NULL
) WITHOUT ROWID;

-- Ended jobs in the order in which they ended. forget_ms is NULL for buried ones, which are kept until a person acts.
CREATE TABLE ended (
    ended INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    lane INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    policy INTEGER NOT NULL,
    crc INTEGER,
    created_ms INTEGER NOT NULL,
    ended_ms INTEGER NOT NULL,
    forget_ms INTEGER,
    expires_ms INTEGER,
    claims INTEGER NOT NULL,
    stage INTEGER NOT NULL,
    forgiven INTEGER NOT NULL,
    counters BLOB,
    claimed_ms INTEGER,
    ran_us INTEGER NOT NULL,
    process TEXT,
    degraded TEXT,
    details BLOB,
    progress BLOB,
    history BLOB,
    result BLOB,
    envelope BLOB NOT NULL
);
CREATE INDEX ended_forget ON ended (forget_ms) WHERE forget_ms IS NOT NULL;
CREATE INDEX ended_buried ON ended (ended) WHERE forget_ms IS NULL;

-- Log text per attempt, as long as the job is stored.
CREATE TABLE logs (
    id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (id, attempt)
) WITHOUT ROWID;

-- Side effects: begun under a claim, done with a value. Without until_ms an entry lives as long as its job.
CREATE TABLE ledger (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    id TEXT NOT NULL,
    number INTEGER NOT NULL,
    token INTEGER NOT NULL,
    value BLOB,
    until_ms INTEGER,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX ledger_until ON ledger (until_ms) WHERE until_ms IS NOT NULL;
CREATE INDEX ledger_job ON ledger (id) WHERE until_ms IS NULL;

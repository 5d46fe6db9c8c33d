-- What workers agree on beside the jobs; a few short values of each kind.
CREATE TABLE IF NOT EXISTS penstock.shared (
    kind text NOT NULL,
    key text NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (kind, key)
);

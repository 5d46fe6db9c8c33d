-- What workers agree on beside the jobs; a few short values of each kind.
CREATE TABLE shared (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;

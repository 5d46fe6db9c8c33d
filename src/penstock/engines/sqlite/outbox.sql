-- The statements of the outbox in a database of the user's, by name.

-- name: make
-- number is the order; nobody takes a row before next_ms (ms since the epoch): while a worker carries it, and until it
-- is tried again; tries counts the refusals so far, error tells the last; aside: refused for good, a person decides.
CREATE TABLE IF NOT EXISTS penstock_outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    job TEXT NOT NULL,
    added_ms INTEGER NOT NULL,
    next_ms INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    aside INTEGER NOT NULL DEFAULT 0
)

-- name: exists
SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'penstock_outbox'

-- name: write_nothing
-- Takes the write lock, and changes nothing.
DELETE FROM penstock_outbox WHERE 0

-- name: put
INSERT INTO penstock_outbox (id, job, added_ms) VALUES (?, ?, ?)

-- name: takeable
SELECT number, job, tries FROM penstock_outbox WHERE aside = 0 AND next_ms <= ? ORDER BY number LIMIT ?

-- name: hold
UPDATE penstock_outbox SET next_ms = ? WHERE number = ?

-- name: drop
DELETE FROM penstock_outbox WHERE number = ?

-- name: put_off
UPDATE penstock_outbox SET next_ms = ?, tries = tries + 1, error = ?, aside = ? WHERE number = ?

-- name: stand
SELECT total(aside = 0), min(CASE WHEN aside = 0 THEN added_ms END), total(aside <> 0) FROM penstock_outbox

-- name: aside
SELECT id, error FROM penstock_outbox WHERE aside <> 0 ORDER BY number LIMIT 5

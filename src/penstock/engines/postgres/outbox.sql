-- The statements of the outbox in a database of the user's, by name. Times are ms since the epoch by its own clock.

-- name: make
-- number is the order; nobody takes a row before next_ms: while a worker carries it, and until it is tried again;
-- tries counts the refusals so far, error tells the last; aside: refused for good, a person decides.
CREATE TABLE IF NOT EXISTS penstock_outbox (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL,
    job text NOT NULL,
    added_ms bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    next_ms bigint NOT NULL DEFAULT 0,
    tries integer NOT NULL DEFAULT 0,
    error text,
    aside boolean NOT NULL DEFAULT false
)

-- name: exists
SELECT to_regclass('penstock_outbox') IS NOT NULL

-- name: alone
-- Two programs that make one table at once would otherwise meet in the catalog, and one would fail.
SELECT pg_advisory_xact_lock(x'70656e73746f636b'::bit(64)::bigint)

-- name: put
INSERT INTO penstock_outbox (id, job) VALUES (%s, %s)

-- name: take
UPDATE penstock_outbox SET next_ms = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + %s WHERE number IN (
    SELECT number FROM penstock_outbox
    WHERE NOT aside AND next_ms <= (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    ORDER BY number LIMIT %s FOR UPDATE SKIP LOCKED
) RETURNING number, job, tries

-- name: drop
DELETE FROM penstock_outbox WHERE number = ANY(%s)

-- name: put_off
UPDATE penstock_outbox SET next_ms = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + %s, tries = tries + 1,
    error = %s, aside = %s WHERE number = %s

-- name: stand
SELECT count(*) FILTER (WHERE NOT aside),
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint - min(added_ms) FILTER (WHERE NOT aside),
    count(*) FILTER (WHERE aside) FROM penstock_outbox

-- name: aside
SELECT id, error FROM penstock_outbox WHERE aside ORDER BY number LIMIT 5

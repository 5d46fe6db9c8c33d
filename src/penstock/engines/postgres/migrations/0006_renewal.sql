-- A heartbeat that reports no death is one statement: of all calls it must get through a slow link in time.

-- Renew leases in the name of a tender, which is among them; gives those that are not void, and whether each should
-- drain. Gives nothing, and renews nothing, if the tender's own lease is void or unknown.
CREATE OR REPLACE FUNCTION penstock.renew(p_wait text, p_tender text, p_leases text[], p_now bigint, p_boot text)
RETURNS TABLE (process_id text, drains boolean) LANGUAGE plpgsql AS $$
DECLARE
    v_set text;
BEGIN
    v_set := set_config('lock_timeout', p_wait, true);
    PERFORM penstock.hold_process(p_tender);
    IF NOT EXISTS (SELECT FROM penstock.processes p WHERE p.id = p_tender AND NOT p.void) THEN
        RETURN;
    END IF;
    UPDATE penstock.leases l SET until_ms = coalesce(p_now, penstock.now_ms()) + p.lease_ms, boot = p_boot
    FROM penstock.processes p WHERE l.process = p.process AND NOT p.void AND p.id = ANY (p_leases);
    RETURN QUERY SELECT p.id, w.drain FROM penstock.processes p JOIN penstock.workers w ON w.worker = p.worker
    WHERE NOT p.void AND p.id = ANY (p_leases);
END $$;

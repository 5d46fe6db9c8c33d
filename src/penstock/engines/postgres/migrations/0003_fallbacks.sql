-- A job that a fallback took over is still the one that was enqueued: adding it again finds it.

-- What is known of a job under an id: nothing, the same task and envelope, or others.
CREATE OR REPLACE FUNCTION penstock.compare(p_id text, j penstock.incoming) RETURNS boolean LANGUAGE sql STABLE AS $$
SELECT CASE WHEN known.stage = 0 THEN l.task ELSE convert_from(known.details, 'UTF8')::json -> 'home' ->> 'task' END = w.task
    AND known.envelope = (j).envelope
FROM (
    SELECT line, stage, details, envelope FROM penstock.jobs WHERE id = p_id
    UNION ALL SELECT line, stage, details, envelope FROM penstock.ended WHERE id = p_id
) known JOIN penstock.lines l ON l.line = known.line JOIN penstock.lines w ON w.line = (j).line
$$;

-- The group of a buried job stands in the error that buried it; it is looked for by this index alone. What can no longer be
-- read is in no group.
ALTER TABLE ended ADD COLUMN grp TEXT AS (
    CASE WHEN state = 'buried' AND NOT forgiven AND json_valid(CAST(history AS TEXT))
    THEN json_extract(CAST(history AS TEXT), '$[#-1].group') END
) VIRTUAL;
CREATE INDEX ended_groups ON ended (grp, id, ended_ms) WHERE forget_ms IS NULL;

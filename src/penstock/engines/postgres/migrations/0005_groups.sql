-- The group of a buried job stands in the error that buried it, and is looked for by an index alone. In the text of the
-- error a quote that is not one of the JSON's own has a backslash before it, so that this finds the field and nothing else.
ALTER TABLE penstock.ended ADD COLUMN grp text COLLATE "C" GENERATED ALWAYS AS (
    CASE WHEN state = 'buried' AND NOT forgiven
    THEN substring(encode(history[cardinality(history)], 'escape') FROM '[,{]"group":"([^"]+)"') END
) STORED;
CREATE INDEX ended_groups ON penstock.ended (grp, id, ended_ms) WHERE forget_ms IS NULL;

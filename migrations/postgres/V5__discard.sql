-- Storing calls this twice, most often with nothing to remove.
--
-- This may be run again over what it has made.

-- Removes objects; what somebody may be reading goes later.
CREATE OR REPLACE FUNCTION baton_discard(p_ids bigint[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    removed bigint;
BEGIN
    -- A plan that was made while there were few objects compares each of them with nothing.
    IF p_ids IS NULL THEN
        RETURN 0;
    END IF;
    INSERT INTO baton_orphans (object_id)
        SELECT id FROM baton_objects WHERE id = ANY (p_ids) AND pieces > 0 ON CONFLICT DO NOTHING;
    DELETE FROM baton_objects WHERE id = ANY (p_ids);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $$;

-- A change ends the leases of who asks for what has changed: what they get is of before, and not stored, so that nobody waits for it.
--
-- This may be run again over what it has made.

-- Numbers a change, and wakes the nodes. The lock is held alone. 0: there is no counter.
CREATE OR REPLACE FUNCTION baton_changed(p_name bytea, p_hash bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    change bigint;
BEGIN
    UPDATE baton_counter SET number = number + 1 RETURNING number INTO change;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    INSERT INTO baton_changes (number, name, hash) VALUES (change, p_name, p_hash);
    IF p_name IS NULL THEN
        DELETE FROM baton_fetches;
    ELSE
        DELETE FROM baton_fetches WHERE name = p_name;
    END IF;
    PERFORM pg_notify('baton', change::text);
    RETURN change;
END $$;

-- Who asks for what has just been purged waits for nobody who asked before: that is not stored any more.
--
-- This may be run again over what it has made.

-- Forgets everything under these names, for all nodes. `change`: the number of the last; 0: there is no counter.
CREATE OR REPLACE FUNCTION baton_purge(p_names bytea[], p_hashes bigint[], OUT removed bigint, OUT change bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    one integer;
BEGIN
    change := 0;
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM pg_advisory_xact_lock(422541815662);
    DELETE FROM baton_fetches WHERE name = ANY (p_names);
    SELECT baton_discard(array_agg(id)) INTO removed FROM baton_objects WHERE name = ANY (p_names);
    FOR one IN 1 .. coalesce(array_length(p_names, 1), 0) LOOP
        change := baton_changed(p_names[one], p_hashes[one]);
    END LOOP;
END $$;

-- Forgets everything at once; the rows go in the background.
CREATE OR REPLACE FUNCTION baton_purge_all() RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM pg_advisory_xact_lock(422541815662);
    DELETE FROM baton_fetches;
    UPDATE baton_counter SET generation = generation + 1;
    RETURN baton_changed(NULL, NULL);
END $$;

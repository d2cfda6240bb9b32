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
    SELECT baton_discard(array_agg(id)) INTO removed FROM baton_objects WHERE name = ANY (p_names);
    FOR one IN 1 .. coalesce(array_length(p_names, 1), 0) LOOP
        change := baton_changed(p_names[one], p_hashes[one]);
    END LOOP;
    -- Last, so that nobody who takes or renews one waits for long.
    DELETE FROM baton_fetches WHERE name = ANY (p_names);
END $$;

-- Forgets everything at once; the rows go in the background.
CREATE OR REPLACE FUNCTION baton_purge_all() RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    change bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM pg_advisory_xact_lock(422541815662);
    UPDATE baton_counter SET generation = generation + 1;
    change := baton_changed(NULL, NULL);
    DELETE FROM baton_fetches;
    RETURN change;
END $$;

-- Forgets all of these objects at once, for all nodes, or marks them as stale since `p_soft` (seconds since 1970). No copy counts any more
-- anywhere, and nothing that was asked for before is stored. `change` as of baton_purge.
CREATE OR REPLACE FUNCTION baton_purge_set(p_ids bigint[], p_soft bigint, OUT objects bigint, OUT octets bigint, OUT change bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM pg_advisory_xact_lock(422541815662);
    SELECT count(*), coalesce(sum(size), 0) INTO objects, octets FROM baton_objects
        WHERE id = ANY (p_ids) AND generation = (SELECT generation FROM baton_counter);
    IF p_soft IS NULL THEN
        PERFORM baton_discard(p_ids);
    ELSE
        UPDATE baton_objects SET outdated = p_soft WHERE id = ANY (p_ids) AND outdated IS NULL;
    END IF;
    change := baton_changed(NULL, NULL);
    DELETE FROM baton_fetches;
END $$;

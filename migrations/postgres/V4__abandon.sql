-- Whoever stores a body in pieces and does not hear whether its object is there must not take the pieces from it.
--
-- This may be run again over what it has made.

-- Removes the pieces of a body whose object never was there, and will not come any more: storing looks for its pieces behind the same
-- lock. One that has come and gone may be being read: it is among the orphans, for ten minutes.
CREATE OR REPLACE FUNCTION baton_abandon(p_id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(422541815662);
    DELETE FROM baton_pieces WHERE object_id = p_id AND NOT EXISTS (SELECT FROM baton_objects WHERE id = p_id)
        AND NOT EXISTS (SELECT FROM baton_orphans WHERE object_id = p_id);
END $$;

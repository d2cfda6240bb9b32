-- Storing in half as many statements: within a function each costs about as much as finding an object.
--
-- This may be run again over what it has made.

-- Puts a response in its place. `change`: its number, where it takes the place of something older; else 0.
CREATE OR REPLACE FUNCTION baton_store(
    p_id bigint, p_name bytea, p_hash bigint, p_variant bytea, p_key bytea, p_head bytea, p_status integer, p_length bigint,
    p_checksum bigint, p_part boolean, p_asked bigint, p_answered bigint, p_expires bigint, p_etag text,
    p_last_modified text, p_tags text[], p_pieces integer, p_body bytea,
    p_incarnation bigint, p_applied bigint, p_replaces boolean, p_most integer,
    OUT kept boolean, OUT change bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    replaces boolean := p_replaces OR EXISTS (
        SELECT FROM baton_objects WHERE name = p_name AND variant = p_variant AND answered < p_asked);
    counter baton_counter%ROWTYPE;
    -- In whose place it comes, and whether that is all of what this is a part of.
    former bigint[];
    is_whole boolean;
    -- Variants beside it.
    others bigint;
BEGIN
    kept := false;
    change := 0;
    IF replaces THEN
        PERFORM set_config('synchronous_commit', 'on', true);
        PERFORM pg_advisory_xact_lock(422541815662);
    ELSE
        -- Beside others, but one at a time of those with the same name.
        PERFORM pg_advisory_xact_lock_shared(422541815662), pg_advisory_xact_lock(1650553967, hashtext(encode(p_name, 'hex')));
    END IF;
    -- What has changed is looked for where anything has. An IF of its own, here and below: all of an expression is asked of the database
    -- as soon as one part of it is.
    SELECT * INTO counter FROM baton_counter WHERE incarnation = p_incarnation;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF p_applied <> counter.number THEN
        IF baton_overtaken(p_name, p_incarnation, p_applied) THEN
            RETURN;
        END IF;
    END IF;
    SELECT array_agg(id) FILTER (WHERE variant = p_variant), count(*) FILTER (WHERE variant <> p_variant),
            bool_or(NOT part AND answered >= p_asked AND generation = counter.generation) FILTER (WHERE variant = p_variant)
        INTO former, others, is_whole FROM baton_objects WHERE name = p_name;
    -- A part is less than the whole that is there.
    IF p_part AND is_whole THEN
        RETURN;
    END IF;
    IF p_pieces > 0 THEN
        IF (SELECT count(*) FROM baton_pieces WHERE object_id = p_id) <> p_pieces THEN
            RETURN;
        END IF;
    END IF;
    IF former IS NOT NULL THEN
        PERFORM baton_discard(former);
    END IF;
    INSERT INTO baton_objects (id, name, variant, generation, key, head, status, length, size, checksum, part, asked, answered,
        expires, etag, last_modified, tags, pieces, body)
    VALUES (p_id, p_name, p_variant, counter.generation, p_key, p_head, p_status, p_length,
        p_length + octet_length(p_head) + octet_length(p_key) + 256, p_checksum, p_part, p_asked, p_answered,
        to_timestamp(p_expires), p_etag, p_last_modified, p_tags, p_pieces, p_body);
    IF others >= p_most THEN
        PERFORM baton_discard(array_agg(id)) FROM (
            SELECT id FROM baton_objects WHERE name = p_name ORDER BY stored DESC OFFSET p_most) AS surplus;
    END IF;
    IF replaces THEN
        change := baton_changed(p_name, p_hash);
    END IF;
    kept := true;
END $$;

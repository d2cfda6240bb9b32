-- What operators may ask in SQL: documented in docs/stores.md, and kept as it is where tables change. The same as on
-- PostgreSQL, but for tags, which the catalogue does not have; times are text, in UTC, as SQLite's own functions make it.

-- How often it was found for a request.
ALTER TABLE objects ADD COLUMN hits INTEGER NOT NULL DEFAULT 0;

CREATE VIEW cache_objects AS
SELECT url, side, kind, status, length, size, stored, expires, used, hits,
    CASE WHEN instr(rest, '/') = 0 THEN url ELSE substr(url, 1, length(url) - length(rest) + instr(rest, '/') - 1) END AS site
FROM (
    SELECT url, CASE WHEN is_reverse THEN 'reverse' ELSE 'forward' END AS side,
        CASE kind WHEN 0 THEN 'object' ELSE 'variant' END AS kind, status, length, kib * 1024 AS size,
        datetime(stored, 'unixepoch') AS stored, datetime(min(expires, 253402300799), 'unixepoch') AS expires,
        datetime(used, 'unixepoch') AS used, hits, replace(substr(url, instr(url, '://') + 3), '?', '/') AS rest
    FROM (
        SELECT *, CASE WHEN is_reverse THEN substr(text, 9) ELSE text END AS url
        FROM (SELECT *, CAST(key AS TEXT) AS text, substr(key, 1, 8) = CAST('reverse ' AS BLOB) AS is_reverse FROM objects)
        WHERE kind < 2
    )
);

-- A row a site: scheme and authority.
CREATE VIEW cache_sites AS
SELECT site, count(*) AS objects, sum(length) AS length, sum(size) AS size, sum(hits) AS hits, max(used) AS used
FROM cache_objects GROUP BY site;

-- What was not used for longest comes first.
CREATE VIEW cache_oldest AS SELECT * FROM cache_objects ORDER BY used;

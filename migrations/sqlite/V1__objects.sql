-- What the cache directory holds, one row a head file. The files are the truth; this is their catalogue, kept by
-- the janitor for listing, and so that a restart knows sizes and last use without reading every file. The janitor
-- finds rows by their id, which it holds in memory: no index has to be kept.
CREATE TABLE objects (
    id       INTEGER PRIMARY KEY,
    name     BLOB    NOT NULL,  -- the file's name as octets: 16, or 24 for a variant
    kind     INTEGER NOT NULL,  -- 0 object, 1 variant of an object, 2 list of variants
    status   INTEGER NOT NULL,  -- of the response
    length   INTEGER NOT NULL,  -- octets of the body
    kib      INTEGER NOT NULL,  -- space taken on the disk, all files of the object
    stored   INTEGER NOT NULL,  -- seconds since 1970
    expires  INTEGER NOT NULL,  -- seconds since 1970: fresh until then
    used     INTEGER NOT NULL,  -- seconds since 1970, coarse
    key      BLOB    NOT NULL   -- the cache key: a URL, with "reverse " before it on the reverse side
);

-- Single facts: whether the last stop was orderly, and the like.
CREATE TABLE facts (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- Purpose:   the common end of every list of jobs: what it is narrowed by, its order and its bound.
-- Arguments: 1 before this id, 2 queue, 3 kind, 4 standing, 5 due by, 6 due after, 7 tenant, 8 error class,
--            9 error signature, 10 batch, 11 operation, 12 text in lower case, 13 the same without hyphens if it may be
--            part of an id, 14 accepted at or after, 15 accepted before, 16 limit,
--            17 not below this id (in the statement that it ends), 18 submitted with this key. NULL does not narrow.
-- Returns:   see the statement that it ends.
-- Invariant: at most `limit` rows.
AND id < coalesce(?1, x'FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF')
AND (?2 IS NULL OR queue = ?2)
AND (?3 IS NULL OR kind = ?3)
AND (?4 IS NULL OR standing = ?4)
AND (?5 IS NULL OR run_at <= ?5)
AND (?6 IS NULL OR run_at > ?6)
AND (?7 IS NULL OR tenant = ?7)
AND (?18 IS NULL OR key_id = ?18)
AND (?8 IS NULL OR error_class = ?8)
AND (?9 IS NULL OR error_signature = ?9)
AND (?10 IS NULL OR batch_id = ?10)
AND (?11 IS NULL OR operation = ?11)
AND (?12 IS NULL
     OR instr(lower(operation), ?12) > 0
     OR instr(lower(unique_key), ?12) > 0
     OR instr(lower(error ->> '$.message'), ?12) > 0
     OR instr(lower(hex(id)), ?13) > 0
     OR EXISTS (SELECT 1 FROM json_each(tags) AS tag WHERE instr(lower(tag.value), ?12) > 0))
AND (?14 IS NULL OR accepted_at >= ?14)
AND (?15 IS NULL OR accepted_at < ?15)
ORDER BY id DESC
LIMIT ?16;

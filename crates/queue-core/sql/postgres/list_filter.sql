-- Purpose:   the end of every list statement: what narrows it, and its order.
-- Arguments: 1 the id behind which the page starts, 2 queue, 3 kind, 4 standing, 5 due by, 6 due after, 7 tenant,
--            8 error class, 9 error signature, 10 batch, 11 operation, 12 text in lower case, 13 the text as part of an
--            id, 14 accepted at or after, 15 accepted before, 16 limit, 17 not below this id (in the statement that it ends),
--            18 submitted with this key. NULL does not narrow.
-- Returns:   see the statement that it ends.
-- Invariant: at most `limit` rows. JSON may hold a NUL, and text may not: for the search it is another character.
AND id < coalesce($1::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
AND ($2::text IS NULL OR queue = $2)
AND ($3::text IS NULL OR kind = $3)
AND ($4::smallint IS NULL OR standing = $4)
AND ($5::bigint IS NULL OR run_at <= $5)
AND ($6::bigint IS NULL OR run_at > $6)
AND ($7::text IS NULL OR tenant = $7)
AND ($18::text IS NULL OR key_id = $18)
AND ($8::text IS NULL OR error_class = $8)
AND ($9::text IS NULL OR error_signature = $9)
AND ($10::text IS NULL OR batch_id = $10)
AND ($11::text IS NULL OR operation = $11)
AND ($12::text IS NULL
     OR position($12 IN lower(operation)) > 0
     OR position($12 IN lower(unique_key)) > 0
     OR position($12 IN lower((replace(error, '\u0000', '\u0001')::json ->> 'message') COLLATE "C")) > 0
     OR position($13::text IN replace(id::text, '-', '')) > 0
     OR EXISTS (SELECT 1 FROM json_array_elements_text(replace(tags, '\u0000', '\u0001')::json) AS tag (value)
                WHERE position($12 IN lower(tag.value COLLATE "C")) > 0))
AND ($14::bigint IS NULL OR accepted_at >= $14)
AND ($15::bigint IS NULL OR accepted_at < $15)
ORDER BY id DESC
LIMIT $16

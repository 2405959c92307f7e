-- Purpose:   how to read every table of the journal.
-- Arguments: none.
-- Returns:   name, statement.
-- Invariant: writes nothing.
SELECT name, 'SELECT * FROM "' || replace(name, '"', '""') || '"'
FROM sqlite_schema
WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\'
ORDER BY name

-- Purpose:   sends no webhook before somebody confirms a restored journal.
-- Arguments: none.
-- Returns:   nothing.
-- Invariant: with backup_mark, where the schema has the column.
UPDATE meta SET restored_at = maintenance_since

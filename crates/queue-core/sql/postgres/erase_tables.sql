-- Purpose:   the tables that say whose their rows are.
-- Arguments: none.
-- Returns:   names, partitions one by one.
-- Invariant: read from the catalogue, so none is forgotten.
SELECT name FROM erase_tables()

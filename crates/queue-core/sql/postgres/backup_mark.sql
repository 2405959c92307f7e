-- Purpose:   marks a journal as restored: other lives of journal and dispatcher, and nothing begins and no webhook goes before somebody confirms.
-- Arguments: variables of psql: since (now), reason, ahead (by how much the dispatcher's life is raised).
-- Returns:   nothing.
-- Invariant: the end of the transaction that loads it. Views of the second wall are made anew: a dump is loaded without its owners.
RESET search_path;
UPDATE meta
SET incarnation = incarnation + 1, generation = generation + :ahead, began_at = :since, fill_beat = 0, filled = FALSE,
    filled_run_at = NULL, filled_id = NULL, maintenance_since = :since, maintenance_reason = :'reason';
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = 'meta'::regclass AND attname = 'restored_at' AND NOT attisdropped) THEN
        UPDATE meta SET restored_at = maintenance_since;
    END IF;
    IF to_regprocedure('guard_tenants()') IS NOT NULL THEN
        PERFORM guard_tenants();
    END IF;
END $$;

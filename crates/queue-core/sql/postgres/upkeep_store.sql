-- Purpose:   the size of the database, whether its tables can be looked after, and whether somebody does.
-- Arguments: none.
-- Returns:   bytes; the owner of the tables where this role may not act for it, else NULL; whether a chore is being done.
-- Invariant: writes nothing.
SELECT pg_database_size(current_database()),
       (SELECT quote_ident(pg_get_userbyid(c.relowner)) FROM pg_class c
        WHERE c.oid = to_regclass('jobs') AND NOT pg_has_role(c.relowner, 'USAGE')),
       EXISTS (SELECT 1 FROM pg_locks l
               WHERE l.locktype = 'advisory' AND l.classid = x'4c53484f'::integer::oid AND l.objid = 6 AND l.objsubid = 2 AND l.granted
                     AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))

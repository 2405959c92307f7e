-- Purpose:   what the role may not do and the journal does.
-- Arguments: none.
-- Returns:   the names of tables and functions; none where all is well.
-- Invariant: writes nothing.
SELECT name::text
FROM unnest(ARRAY['jobs', 'settled_jobs', 'payloads', 'attempts', 'memos', 'spend', 'charges', 'savings',
                  'cost_days', 'cost_tail', 'key_days', 'key_tail', 'budgets', 'budget_alerts', 'dead_causes', 'dead_tail',
                  'operations', 'idempotency_bodies', 'idempotency_keys', 'unique_keys', 'queues',
                  'queue_totals', 'targets', 'tenants', 'tenant_totals', 'credentials', 'credential_mark', 'api_keys',
                  'sessions', 'meta', 'webhook_endpoints', 'webhook_deliveries', 'webhook_attempts', 'webhook_circuits',
                  'signing_secrets', 'revoked_tokens', 'archives', 'archive_objects', 'backups', 'erasures', 'schedules', 'retention_turn',
                  'retention_notes', 'result_ttls', 'late_ends']) AS name
WHERE NOT (has_table_privilege(name, 'SELECT') AND has_table_privilege(name, 'INSERT')
           AND has_table_privilege(name, 'UPDATE') AND has_table_privilege(name, 'DELETE'))
UNION ALL
SELECT name FROM unnest(ARRAY['audit_log', 'audit_heads']) AS name
WHERE NOT (has_table_privilege(name, 'SELECT') AND has_table_privilege(name, 'INSERT'))
UNION ALL
SELECT 'audit_heads' WHERE NOT has_table_privilege('audit_heads', 'UPDATE')
UNION ALL
SELECT name FROM unnest(ARRAY['job_rows', 'cost_lines', 'delivery_rows']) AS name WHERE NOT has_table_privilege(name, 'SELECT')
UNION ALL
SELECT 'audit_floor' WHERE NOT has_table_privilege('audit_floor', 'SELECT')
UNION ALL
SELECT 'erasure_walk' WHERE NOT has_table_privilege('erasure_walk', 'SELECT')
UNION ALL
SELECT 'erase_step' WHERE NOT has_function_privilege('erase_step(bigint, bigint, bigint, bigint[])', 'EXECUTE')
                          OR NOT has_function_privilege('erase_tables()', 'EXECUTE')
                          OR NOT has_function_privilege('erase_count(text, text)', 'EXECUTE')
UNION ALL
SELECT 'create_partitions' WHERE NOT has_function_privilege('create_partitions(bigint, integer)', 'EXECUTE')
UNION ALL
SELECT 'retention_drop' WHERE NOT has_function_privilege('retention_days(bigint)', 'EXECUTE')
                              OR NOT has_function_privilege('retention_drop(text, bigint, bigint)', 'EXECUTE')
                              OR NOT has_function_privilege('retention_reclaim()', 'EXECUTE')
UNION ALL
SELECT 'audit_forget'
WHERE NOT has_function_privilege('audit_raise_floor(integer, bigint, bytea, bigint, text, bytea, bigint)', 'EXECUTE')
      OR NOT has_function_privilege('audit_forget(bigint)', 'EXECUTE')

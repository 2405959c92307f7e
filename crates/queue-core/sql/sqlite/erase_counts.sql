-- Purpose:   what the journal has of a tenant, table by table.
-- Arguments: 1 tenant.
-- Returns:   name, rows.
-- Invariant: reads whole tables: only for whoever asks what an erasure would take away.
SELECT 'jobs', count(*) FROM jobs WHERE tenant = ?1
UNION ALL SELECT 'spend', count(*) FROM spend WHERE tenant = ?1
UNION ALL SELECT 'charges', count(*) FROM charges WHERE tenant = ?1
UNION ALL SELECT 'savings', count(*) FROM savings WHERE tenant = ?1
UNION ALL SELECT 'cost_days', count(*) FROM cost_days WHERE tenant = ?1
UNION ALL SELECT 'key_days', count(*) FROM key_days WHERE tenant = ?1
UNION ALL SELECT 'archive_objects', count(*) FROM archive_objects WHERE tenant = ?1
UNION ALL SELECT 'dead_causes', count(*) FROM dead_causes WHERE tenant = ?1
UNION ALL SELECT 'idempotency_keys', count(*) FROM idempotency_keys
          WHERE tenant = ?1 OR substr(tenant, 1, length(?1) + 1) = ?1 || char(31)
UNION ALL SELECT 'unique_keys', count(*) FROM unique_keys WHERE tenant = ?1
UNION ALL SELECT 'tenant_totals', count(*) FROM tenant_totals WHERE tenant = ?1
UNION ALL SELECT 'api_keys', count(*) FROM api_keys WHERE tenant = ?1
UNION ALL SELECT 'credentials', count(*) FROM credentials WHERE tenant = ?1
UNION ALL SELECT 'webhook_endpoints', count(*) FROM webhook_endpoints WHERE tenant = ?1
UNION ALL SELECT 'webhook_deliveries', count(*) FROM webhook_deliveries WHERE tenant = ?1;

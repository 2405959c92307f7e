-- Purpose:   keeps an order.
-- Arguments: 1 id, 2 ordered_at, 3 work, 4 record.
-- Returns:   nothing.
-- Invariant: one that is there stays as it is.
INSERT INTO backups (id, ordered_at, work, record) VALUES ($1, $2, $3, $4)
ON CONFLICT (id) DO NOTHING

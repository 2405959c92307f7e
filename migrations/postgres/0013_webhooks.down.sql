-- Undoes 0013_webhooks.sql. Endpoints, their secrets and what was still to be delivered are lost with it.

DROP VIEW delivery_rows;
DROP TABLE webhook_circuits;
DROP TABLE webhook_attempts;
DROP TABLE webhook_deliveries;
DROP TABLE signing_secrets;
DROP TABLE webhook_endpoints;
ALTER TABLE jobs DROP CONSTRAINT jobs_kind_check;
ALTER TABLE jobs ADD CONSTRAINT jobs_kind_check CHECK (kind IN ('llm', 'embedding', 'analysis', 'probe'));
ALTER TABLE jobs DROP COLUMN webhook;

-- Undoes 0003_catalog.sql. Settings, keys and numbers are lost with it.

DROP TABLE meta;
DROP TABLE sessions;
DROP TABLE api_keys;
DROP TABLE tenant_totals;
DROP TABLE tenants;
DROP TABLE queue_totals;
DROP TABLE queues;

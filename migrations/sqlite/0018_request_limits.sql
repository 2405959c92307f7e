-- How often a key or a tenant may ask in a minute. NULL: as configured.

ALTER TABLE api_keys ADD COLUMN requests_per_minute INTEGER CHECK (requests_per_minute BETWEEN 1 AND 1000000);
ALTER TABLE api_keys ADD COLUMN llm_submits_per_minute INTEGER CHECK (llm_submits_per_minute BETWEEN 1 AND 1000000);
ALTER TABLE tenants ADD COLUMN requests_per_minute INTEGER CHECK (requests_per_minute BETWEEN 1 AND 1000000);
ALTER TABLE tenants ADD COLUMN llm_submits_per_minute INTEGER CHECK (llm_submits_per_minute BETWEEN 1 AND 1000000);

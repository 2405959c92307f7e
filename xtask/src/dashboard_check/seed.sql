-- What has happened before anybody looks: {jobs} settled jobs of ten tenants over thirty days with their money, and {letters} dead letters of
-- twelve causes. Written straight into the journal, with the sums that its own statements would have kept.
-- `{now_ms}` is the moment. The newest ended a minute ago. Tenants and queues are of very different size, as they are in life.

SELECT create_partitions({now_ms} - 30 * 86400000::bigint, 32);

CREATE FUNCTION pg_temp.tenant_of(n bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT (ARRAY['acme', 'borealis', 'corvid', 'delta', 'ember', 'fjord', 'garnet', 'harbour', 'iris', 'juniper'])
           [1 + least(9, floor(10 * power((n * 7919 % 1000) / 1000.0, 1.6)))::integer]
$$;

CREATE TEMP TABLE sorts (
    sort integer, queue text, kind text, operation text, provider text, model text, in_nano bigint, out_nano bigint);
INSERT INTO sorts VALUES
    (0, 'chat', 'llm', 'chat-answer', 'openai', 'gpt-4o-mini', 150, 600),
    (1, 'chat', 'llm', 'chat-answer', 'openai', 'gpt-4o-mini', 150, 600),
    (2, 'chat', 'llm', 'chat-answer', 'openai', 'gpt-4o', 2500, 10000),
    (3, 'extraction', 'analysis', 'claim-extraction', 'openai', 'gpt-4o-mini', 150, 600),
    (4, 'extraction', 'analysis', 'claim-extraction', 'anthropic', 'claude-haiku-4-5', 1000, 5000),
    (5, 'summaries', 'analysis', 'doc-summary', 'anthropic', 'claude-haiku-4-5', 1000, 5000),
    (6, 'embeddings', 'embedding', 'embed-chunks', 'openai', 'text-embedding-3-small', 20, 0),
    (7, 'embeddings', 'embedding', 'embed-chunks', 'openai', 'text-embedding-3-small', 20, 0),
    (8, 'reports', 'llm', 'weekly-report', 'openai', 'gpt-4o', 2500, 10000),
    (9, 'nightly', 'llm', 'translate', 'openai', 'gpt-4o-mini', 150, 600);

CREATE TEMP TABLE made AS
SELECT (lpad(to_hex(at), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid AS id, n, at, pg_temp.tenant_of(n) AS tenant, s.*,
       -- One of fifty was cancelled.
       CASE WHEN n % 50 = 7 THEN 3 ELSE 1 END AS standing, 400 + n * 37 % 9000 AS took_ms,
       200 + n * 31 % 1800 AS tokens_in, CASE WHEN kind = 'embedding' THEN 0 ELSE 20 + n * 17 % 400 END AS tokens_out
FROM (SELECT n, {now_ms} - 60000 - ({jobs} - n) * (30 * 86400000::bigint / {jobs}) AS at
      FROM generate_series(1::bigint, {jobs}) AS n) AS moments
JOIN sorts s ON s.sort = n * 13 % 10;
ALTER TABLE made ADD COLUMN cost bigint;
UPDATE made SET cost = CASE WHEN standing = 1 THEN tokens_in * in_nano + tokens_out * out_nano ELSE 0 END;

INSERT INTO settled_jobs (id, tenant, queue, kind, target, priority, standing, attempts, max_attempts, run_at, accepted_at, finished_at,
                          calls, tokens_in, tokens_out, cost_nanousd, served_by, operation, tags, cancel_reason, result, session, began_at)
SELECT id, tenant, queue, kind, provider || ':' || model || ':default', 3 + n % 4, standing, (standing = 1)::integer, 3, at, at,
       at + 20 + took_ms, (standing = 1)::integer, CASE WHEN standing = 1 THEN tokens_in ELSE 0 END,
       CASE WHEN standing = 1 THEN tokens_out ELSE 0 END, cost, CASE WHEN standing = 1 THEN provider || '/' || model END, operation,
       CASE WHEN n % 9 = 0 THEN '["import-' || n % 40 || '"]' END, CASE WHEN standing = 3 THEN 'the customer has left' END,
       CASE WHEN standing = 1 THEN convert_to('{"text":"' || repeat('an answer ', 12) || n || '","finish":"stop"}', 'UTF8') END,
       CASE WHEN standing = 1 THEN '01936a00-0000-7000-8000-000000000001'::uuid END, CASE WHEN standing = 1 THEN at + 20 END
FROM made;

INSERT INTO payloads (id, tenant, body)
SELECT id, tenant, convert_to('{"messages":[{"role":"user","content":"' || repeat('a question ', 10) || n || '"}]}', 'UTF8') FROM made;

INSERT INTO attempts (job_id, tenant, epoch, number, outcome, session, finished_at, error)
SELECT id, tenant, 0, 1, 'retry', '01936a00-0000-7000-8000-000000000001', at,
       '{"class":"server","code":"503","message":"The engine is overloaded","signature":"server:503: The engine is overloaded","retryable":true}'
FROM made WHERE n % 25 = 0;

INSERT INTO spend (job_id, call_id, tenant, queue, kind, operation, epoch, step, sequence, provider, model, status, billed, tokens_in,
                   tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, usage_source, cost_nanousd, price_version, duration_ms,
                   at, opens_job)
SELECT id, id, tenant, queue, kind, operation, 0, 'call', 0, provider, model, 'ok', 'yes', tokens_in, tokens_out, 0, 0, 0, 'provider',
       cost, 'seed', took_ms, at + 20 + took_ms, TRUE
FROM made WHERE standing = 1;

INSERT INTO charges (job_id, tenant, queue, kind, operation, charge_nanousd, at)
SELECT id, tenant, queue, kind, operation, cost, at + 20 + took_ms FROM made WHERE standing = 1;

INSERT INTO savings (job_id, call_id, epoch, reason, tenant, queue, kind, operation, provider, model, tokens_in, tokens_out, saved_nanousd, at)
SELECT id, id, 0, CASE WHEN n % 3 = 0 THEN 'memo' ELSE 'cache' END, tenant, queue, kind, operation, provider, model, tokens_in, tokens_out,
       cost, at + 20
FROM made WHERE n % 40 = 0 AND standing = 1;

CREATE TEMP TABLE causes (cause integer, class text, code text, message text, retryable boolean);
INSERT INTO causes VALUES
    (0, 'server', '503', 'The engine is overloaded', TRUE),
    (1, 'server', '500', 'The server had an error while processing your request', TRUE),
    (2, 'rate', 'rate_limit_exceeded', 'Rate limit reached for requests', TRUE),
    (3, 'auth', 'invalid_api_key', 'The key was refused', FALSE),
    (4, 'timeout', 'timeout', 'The attempt ran longer than its limit', TRUE),
    (5, 'invalid_output', 'schema', 'The answer does not fit the schema, also after a repair', FALSE),
    (6, 'filtered', 'content_filter', 'The provider withheld the answer', FALSE),
    (7, 'truncated', 'length', 'The answer was cut at the token limit', FALSE),
    (8, 'overflow', 'context_length_exceeded', 'The prompt does not fit into the window of the model', FALSE),
    (9, 'stream_broken', 'cut', 'The stream ended in the middle', TRUE),
    (10, 'poison', 'worker_lost', '3 or more workers were lost while running this job', FALSE),
    (11, 'bad_request', 'invalid_request_error', 'Unknown parameter', FALSE);

CREATE TEMP TABLE letters AS
SELECT (lpad(to_hex(at), 12, '0') || '70018000' || lpad(to_hex(n), 12, '0'))::uuid AS id, n, at, pg_temp.tenant_of(n) AS tenant, s.*, c.*,
       c.class || ':' || c.code || ': ' || translate(c.message, '3', '#') AS signature, 600 + n * 31 % 1800 AS tokens_in, 40 + n * 17 % 300 AS tokens_out
FROM (SELECT n, {now_ms} - 90000 - ({letters} - n) * (3 * 86400000::bigint / {letters}) AS at
      FROM generate_series(1::bigint, {letters}) AS n) AS moments
-- Jobs that a worker can run, so that a redrive comes to something.
JOIN sorts s ON s.sort = (ARRAY[0, 1, 2, 8, 9])[1 + n % 5]
JOIN causes c ON c.cause = n % 12;

INSERT INTO jobs (id, tenant, queue, kind, target, priority, standing, attempts, max_attempts, recoveries, run_at, accepted_at, finished_at,
                  error, error_class, error_signature, calls, tokens_in, tokens_out, cost_nanousd, operation)
SELECT id, tenant, queue, kind, provider || ':' || model || ':default', 5, 2, CASE WHEN class = 'poison' THEN 0 ELSE 3 END, 3,
       CASE WHEN class = 'poison' THEN 3 ELSE 0 END, at, at, at + 60000,
       json_build_object('class', class, 'code', code, 'message', message, 'signature', signature, 'retryable', retryable)::text, class,
       signature, 3, 3 * tokens_in, 3 * tokens_out, 3 * (tokens_in * in_nano + tokens_out * out_nano), operation
FROM letters;

INSERT INTO payloads (id, tenant, body)
SELECT id, tenant, convert_to('{"model":"' || model || '","messages":[{"role":"user","content":"question ' || n || '"}]}', 'UTF8')
FROM letters;

INSERT INTO attempts (job_id, tenant, epoch, number, outcome, session, started_at, finished_at, error)
SELECT id, tenant, number - 1, number,
       CASE WHEN class = 'poison' THEN 'lost' WHEN number = 3 THEN 'dead' ELSE 'retry' END,
       '01936a00-0000-7000-8000-000000000001', at + number * 15000, at + number * 20000,
       json_build_object('class', class, 'code', code, 'message', message, 'signature', signature, 'retryable', retryable)::text
FROM letters, generate_series(1, 3) AS number;

INSERT INTO spend (job_id, call_id, tenant, queue, kind, operation, epoch, step, sequence, provider, model, status, billed, tokens_in,
                   tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, usage_source, cost_nanousd, price_version, duration_ms,
                   at, opens_job, waste)
SELECT id, id, tenant, queue, kind, operation, number - 1, 'call', 0, provider, model, 'ok', 'yes', tokens_in, tokens_out, 0, 0, 0, 'provider',
       tokens_in * in_nano + tokens_out * out_nano, 'seed', 2100, at + number * 20000, number = 1, 'died'
FROM letters, generate_series(1, 3) AS number;

INSERT INTO queues (name) SELECT DISTINCT queue FROM sorts ON CONFLICT DO NOTHING;
-- A slot of its own: sums go over all of them.
INSERT INTO queue_totals (queue, slot, accepted, succeeded, cancelled, dead)
SELECT queue, 32000, sum(accepted), sum(succeeded), sum(cancelled), sum(dead)
FROM (SELECT queue, count(*) AS accepted, count(*) FILTER (WHERE standing = 1) AS succeeded,
             count(*) FILTER (WHERE standing = 3) AS cancelled, 0::bigint AS dead
      FROM made GROUP BY queue
      UNION ALL
      SELECT queue, count(*), 0, 0, count(*) FROM letters GROUP BY queue) AS counts
GROUP BY queue;

DROP TABLE made, letters;
ANALYZE;

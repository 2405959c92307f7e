-- Purpose: the circuits of a fleet (breaker/memory.rs is the original). One call a verb; it knows nothing of jobs.
-- Keys: 1 the prefix P, which holds the hash tag. The Rust side prepends the constants in capitals.
--     P:c:<circuit>  s '1' while open, u until, n failed probes, w why, p probe, e end of its place; b<k> c<k> f<k>
--                    number, calls and failures of a bucket
--     P:all          circuits by their last use        P:set  target -> version, mode, held, until, reason (NUL between)
-- Arguments: 1 verb, 2 the time in milliseconds, which only tests set ('': Redis' own); then the verb's own.
-- Invariant: of the callers of a circuit one at a time is its probe, from `enter` until its end or until it is not renewed.

-- Set by `run`, never left over from another call.
local call, P, now, bucket_now

local function number(n) return string.format('%.0f', n) end

local function key_of(name) return P .. ':c:' .. name end

local function touch(name, keep)
  call('ZADD', P .. ':all', number(now), name)
  call('PEXPIRE', key_of(name), math.max(FORGET_MS, keep or 0))
end

local function load(name)
  local found = call('HMGET', key_of(name), 's', 'u', 'n', 'w', 'p', 'e')
  return {
    name = name, open = found[1] == '1', till = tonumber(found[2]) or 0, failed = tonumber(found[3]) or 0,
    why = found[4] or '', probe = found[5] or '', probe_till = tonumber(found[6]) or 0,
  }
end

local function is_probed(circuit) return circuit.probe ~= '' and circuit.probe_till > now end

local function count(name, successes, failures)
  local key, slot = key_of(name), bucket_now % BUCKETS
  if tonumber(call('HGET', key, 'b' .. slot)) ~= bucket_now then
    call('HSET', key, 'b' .. slot, number(bucket_now), 'c' .. slot, 0, 'f' .. slot, 0)
  end
  call('HINCRBY', key, 'c' .. slot, successes + failures)
  call('HINCRBY', key, 'f' .. slot, failures)
end

local function sums(name)
  local calls, failures = 0, 0
  for slot = 0, BUCKETS - 1 do
    local found = call('HMGET', key_of(name), 'b' .. slot, 'c' .. slot, 'f' .. slot)
    local of = tonumber(found[1])
    if of and of <= bucket_now and bucket_now - of < BUCKETS then
      calls, failures = calls + tonumber(found[2]), failures + tonumber(found[3])
    end
  end
  return calls, failures
end

local function trip(name, failed, ms, why)
  call('DEL', key_of(name))
  call('HSET', key_of(name), 's', '1', 'u', number(now + ms), 'n', failed, 'w', why)
  touch(name, FORGET_MS + ms)
  return { 'opened', number(now + ms), number(ms), why }
end

local function open_ms(failed) return math.min(OPEN_MS * 2 ^ math.min(failed, 16), OPEN_MAX_MS) end

-- What an operator has set: mode, until and reason while it is held.
local function setting(target)
  local text = call('HGET', P .. ':set', target)
  if not text then return 'auto' end
  local mode, held, till, reason = text:match('^[^%z]*%z([^%z]*)%z([^%z]*)%z([^%z]*)%z(.*)$')
  till = tonumber(till)
  if held == '1' and (not till or till > now) then return mode, till or '', reason end
  return mode
end

local verbs = {}

-- target, account, probe, successes -> 'closed' | 'probe', target, account | 'refused', by, until, wait, reason
function verbs.enter(target, account, probe, successes)
  local circuits = { { load(account), 'account' }, { load(target), 'failures' } }
  if tonumber(successes) > 0 and not circuits[2][1].open then count(target, tonumber(successes), 0) end
  if call('EXISTS', key_of(target)) == 0 then call('HSET', key_of(target), 's', '0') end
  touch(target, circuits[2][1].open and circuits[2][1].till - now + FORGET_MS)
  local mode, till, reason = setting(target)
  if till then return { 'refused', 'operator', till, till ~= '' and number(till - now) or '', reason } end
  local probes = {}
  for _, pair in ipairs(circuits) do
    local circuit, by = pair[1], pair[2]
    if circuit.open and not (by == 'failures' and mode == 'close') then
      if now < circuit.till then
        return { 'refused', by, number(circuit.till), number(circuit.till - now), circuit.why }
      end
      if is_probed(circuit) and circuit.probe ~= probe then
        local ends = circuit.probe_till
        return { 'refused', by, number(ends), number(ends - now), circuit.why .. '; one call is trying it' }
      end
      probes[by] = true
      probes[#probes + 1] = circuit.name
    end
  end
  for _, name in ipairs(probes) do call('HSET', key_of(name), 'p', probe, 'e', number(now + PROBE_MS)) end
  if #probes == 0 then return { 'closed' } end
  return { 'probe', probes.failures and 1 or 0, probes.account and 1 or 0 }
end

-- circuit, probe, end, milliseconds of 'exhausted', successes, reason
--   -> 'none' | 'closed' | 'opened', until, wait, reason | 'stood open', until, wait, reason
verbs['end'] = function(name, probe, kind, ms, successes, reason)
  local circuit = load(name)
  local failed = circuit.failed + 1
  if circuit.open then
    if circuit.probe ~= probe then
      if kind ~= 'failure' or now >= circuit.till or setting(name) == 'close' then return { 'none' } end
      return { 'stood open', number(circuit.till), number(circuit.till - now), circuit.why }
    end
    if kind == 'failure' then
      return trip(name, failed, open_ms(failed), 'the call that tried it failed: ' .. reason)
    end
    if kind == 'exhausted' then return trip(name, failed, tonumber(ms), reason) end
    if kind == 'unknown' then
      call('HDEL', key_of(name), 'p', 'e')
      return { 'none' }
    end
    call('DEL', key_of(name))
    call('HSET', key_of(name), 's', '0')
    touch(name)
    return { 'closed' }
  end
  if kind == 'exhausted' then return trip(name, 0, tonumber(ms), reason) end
  local failure = kind == 'failure' and 1 or 0
  count(name, tonumber(successes) + (kind == 'success' and 1 or 0), failure)
  touch(name)
  local calls, failures = sums(name)
  if setting(name) == 'close' or failure == 0 or calls < CALLS_MIN or failures * 2 < calls then return { 'none' } end
  local why = failures .. ' of ' .. calls .. ' calls failed within 30 s, the last with: ' .. reason
  return trip(name, 0, open_ms(0), why)
end

-- probe, circuits ... -> 1
function verbs.renew(probe, ...)
  for _, name in ipairs({ ... }) do
    if load(name).probe == probe then call('HSET', key_of(name), 'e', number(now + PROBE_MS)) end
  end
  return 1
end

-- circuit -> 1
function verbs.close(name)
  if call('EXISTS', key_of(name)) == 1 then
    call('DEL', key_of(name))
    call('HSET', key_of(name), 's', '0')
    touch(name)
  end
  return 1
end

-- target, version, mode, held, until, reason -> 1. An older version changes nothing.
function verbs.set(target, version, mode, held, till, reason)
  local known = call('HGET', P .. ':set', target)
  if known and tonumber(known:match('^[^%z]*')) > tonumber(version) then return 1 end
  call('HSET', P .. ':set', target, table.concat({ version, mode, held, till, reason }, '\0'))
  if mode == 'close' then verbs.close(target) end
  return 1
end

-- -> circuit, open, until, failed probes, probing, reason, calls, failures of each, in no order
function verbs.list()
  call('ZREMRANGEBYSCORE', P .. ':all', '-inf', number(now - FORGET_MS))
  local reply = {}
  for _, name in ipairs(call('ZREVRANGE', P .. ':all', 0, CIRCUITS_MAX - 1)) do
    local circuit = load(name)
    local calls, failures = sums(name)
    reply[#reply + 1] = {
      name, circuit.open and 1 or 0, circuit.open and number(circuit.till) or '', circuit.failed,
      is_probed(circuit) and 1 or 0, circuit.why, calls, failures, number(now),
    }
  end
  return reply
end

local function run(keys, args)
  call, P, now = redis.call, keys[1], tonumber(args[2])
  if not now then
    local time = call('TIME')
    now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  end
  bucket_now = math.floor(now / BUCKET_MS)
  return verbs[args[1]](unpack(args, 3))
end

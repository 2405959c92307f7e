-- Purpose: how often keys and tenants may ask the API, over all of its processes: meters by the generic cell rate algorithm, as
--   src/request_limits/book.rs has them in memory; the two are compared by one suite. One call a request.
-- Keys: of `take`: the meters of one request, each the moment (in us) at which it is whole again. They have one hash tag, which is
--   the tenant. Of `count`: the processes by when they were last seen (in ms).
-- Arguments: 1 verb, 2 the time in us, which only tests set ('': Redis' own); then of `take` for each key five:
--   measure ('1' requests, '2' jobs), us for one more, what may come at once, least, most; of `count`: id, ms until it is forgotten.
-- Returns: of `take`: whether it passes, jobs that were granted (-1: nobody counts them), then of each key four:
--   left, us until one more, us until `least` is there, us until it is whole. Of `count`: how many processes there are.
-- Invariant: it takes from all meters or from none. A meter that is whole is no key: each expires by itself.
--   The Rust side prepends the constants in capitals.

local verbs = {}

-- A key outlives its moment by KEEP_MS, so that a clock that is set back a little forgets nothing.
local function keep(key, whole, now)
  redis.call('SET', key, string.format('%.0f', whole), 'PX', math.ceil((whole - now) / 1000) + KEEP_MS)
end

local function read(key, args, from, now)
  local meter = {
    key = key, measure = args[from], us = tonumber(args[from + 1]), burst = tonumber(args[from + 2]),
    least = tonumber(args[from + 3]), most = tonumber(args[from + 4]),
  }
  -- No meter is closed for longer than its whole burst is worth, whatever clock or quota it was written by.
  local latest = now + meter.us * meter.burst
  meter.whole = math.max(tonumber(redis.call('GET', key)) or 0, now)
  if meter.whole > latest then
    meter.whole = latest
    keep(key, latest, now)
  end
  meter.left = math.floor((latest - meter.whole) / meter.us)
  return meter
end

-- Time until so many may come at once.
local function until_there(meter, cells, now)
  if cells > meter.burst then return 0 end
  return math.max(meter.whole - now - (meter.burst - cells) * meter.us, 0)
end

function verbs.take(keys, args, now)
  local meters, granted = {}, {}
  for at, key in ipairs(keys) do
    local meter = read(key, args, at * 5 - 2, now)
    meters[at] = meter
    granted[meter.measure] = math.min(granted[meter.measure] or meter.most, meter.most, meter.left)
  end
  local passes = true
  for _, meter in ipairs(meters) do passes = passes and granted[meter.measure] >= meter.least end
  local reply = { passes and 1 or 0, granted['2'] or -1 }
  for _, meter in ipairs(meters) do
    local taken = passes and granted[meter.measure] or 0
    if taken > 0 then
      meter.whole, meter.left = meter.whole + taken * meter.us, meter.left - taken
      keep(meter.key, meter.whole, now)
    end
    reply[#reply + 1] = meter.left
    reply[#reply + 1] = until_there(meter, meter.left + 1, now)
    reply[#reply + 1] = until_there(meter, meter.least, now)
    reply[#reply + 1] = meter.whole - now
  end
  return reply
end

function verbs.count(keys, args, now)
  local now_ms, forget_ms = math.floor(now / 1000), tonumber(args[4])
  redis.call('ZADD', keys[1], now_ms, args[3])
  redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', now_ms - forget_ms)
  redis.call('PEXPIRE', keys[1], forget_ms)
  return redis.call('ZCARD', keys[1])
end

local function run(keys, args)
  local now = tonumber(args[2])
  if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  end
  return verbs[args[1]](keys, args, now)
end

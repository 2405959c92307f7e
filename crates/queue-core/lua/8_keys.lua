-- Purpose: concurrency keys. Of the jobs of one queue, tenant and key only so many stand in their lanes or are held; the
--   others stand in a line of their key, where no claim looks (keys.rs of the memory dispatcher is the original).
-- Invariant: after `settle()`, the entries of a key in lanes (`ka`) are those of its due ones that rank first, as many
--   as the limit leaves beside the held ones. While a new limit has not reached all keys of a queue, its timer `k` is
--   due.

-- A block of its own, as in 4_claim.lua.
do
-- A key: jobs that have it, claims that are held; then its name.
local KEY = '>I4I4'
local KEY_BYTES = 8

local function key_numbered(number)
  S.keys = S.keys or {}
  local key = S.keys[number]
  if not key then
    local text = call('HGET', S.D .. 'ks', number)
    local refs, held = struct.unpack(KEY, text)
    local name = text:sub(KEY_BYTES + 1)
    key = { number = number, refs = refs, held = held, name = name, queue = name:match('^[^%z]*'), shared = refs > 1 }
    S.keys[number] = key
  end
  return key
end

-- The key of these three, made if it is new.
local function key_named(queue, tenant, name)
  local full = queue .. NUL .. tenant .. NUL .. name
  S.keys, S.key_numbers = S.keys or {}, S.key_numbers or {}
  local number = S.key_numbers[full]
  if number == nil then number = tonumber(call('HGET', S.D .. 'kn', full)) end
  if not number then
    number = call('HINCRBY', S.D .. 'meta', 'keys', 1)
    call('HSET', S.D .. 'kn', full, number)
    S.keys[number] = { number = number, refs = 0, held = 0, name = full, queue = queue, shared = false }
  end
  S.key_numbers[full] = number
  return key_numbered(number)
end

local function key_of(id) return key_numbered(tonumber(call('HGET', S.D .. 'kj', id))) end

local function line_of(key) return S.D .. 'ka:' .. key.number, S.D .. 'kb:' .. key.number end

-- Something of the key changed: the next `settle()` looks at it again.
local function unfit(key)
  S.unfit = S.unfit or {}
  S.unfit[key.number] = key
end

-- Due entries of the queue that wait for a place.
local function count_blocked(queue, by) call('HINCRBY', S.D .. 'q:' .. queue, 'b', by) end

-- Jobs of one key of the queue that may run at once.
function keys.limit(queue)
  S.key_limits = S.key_limits or {}
  local limit = S.key_limits[queue]
  if not limit then
    limit = tonumber(call('HGET', S.D .. 'q:' .. queue, 'k')) or KEY_LIMIT
    S.key_limits[queue] = limit
  end
  return limit
end

-- One job more has the key.
local function take_key(lane, name, id)
  local key = key_named(lane.queue, lane.tenant, name)
  key.refs = key.refs + 1
  call('HSET', S.D .. 'kj', id, key.number)
  unfit(key)
  return key
end

-- A job comes to wait that has this key.
function keys.note(lane, name, id) take_key(lane, name, id) end

-- A job is forgotten, or not held any more.
function keys.forget(id, held)
  local key = key_of(id)
  key.refs = key.refs - 1
  if held then key.held = key.held - 1 end
  call('HDEL', S.D .. 'kj', id)
  unfit(key)
end

-- A claim of another generation is held: it has its place whether there is room or not.
function keys.occupy(lane, name, id)
  local key = take_key(lane, name, id)
  key.held = key.held + 1
end

-- These entries were taken out of their lanes: they keep their places as held ones.
function keys.hold(ids)
  for n, number in ipairs(call('HMGET', S.D .. 'kj', unpack(ids))) do
    local key = key_numbered(tonumber(number))
    call('ZREM', line_of(key), ids[n])
    key.held = key.held + 1
    unfit(key)
  end
end

-- An entry is due: it joins the line of its key, and its lane when it has a place.
function keys.join(id, priority, run_at)
  local key = key_of(id)
  local _, blocked = line_of(key)
  call('ZADD', blocked, number_text(run_at - priority * AGEING_MS), id)
  count_blocked(key.queue, 1)
  unfit(key)
end

-- A due entry waits no more -> whether it stands in its lane.
function keys.leave(id)
  local key = key_of(id)
  local admitted, blocked = line_of(key)
  unfit(key)
  if call('ZREM', admitted, id) == 1 then return true end
  call('ZREM', blocked, id)
  count_blocked(key.queue, -1)
  return false
end

-- The place of an entry that its key keeps out of its lane: the key, its limit, entries before it; else nil.
function keys.explain(id)
  local key = key_of(id)
  local admitted, blocked = line_of(key)
  local place = call('ZRANK', blocked, id)
  if not place then return nil end
  return { 'key', key.name:match('%z[^%z]*%z(.*)$'), keys.limit(key.queue), call('ZCARD', admitted) + place }
end

local function move(id, from, to, rank)
  call('ZREM', from, id)
  call('ZADD', to, rank, id)
  S.moves = S.moves + 1
  return job_of(id)
end

local function admit(id, rank, admitted, blocked)
  local job = move(id, blocked, admitted, rank)
  add(lane_of(job.lane), id, job.track, job.priority, job.run_at)
end

local function block(id, rank, admitted, blocked)
  local job = move(id, admitted, blocked, rank)
  cut(lane_of(job.lane), job)
end

-- Brings into the lanes what the limit admits, and takes out what it does not -> whether that is all of it. No entry
-- moves twice: what comes ranks before what goes, and what goes after what stays.
local function fit(key)
  local admitted, blocked = line_of(key)
  local room, inside, waiting = math.max(keys.limit(key.queue) - key.held, 0), call('ZCARD', admitted), 0
  while inside > room do
    if S.moves >= MOVES_MAX then return false, waiting end
    local last = call('ZREVRANGE', admitted, 0, 0, 'WITHSCORES')
    block(last[1], last[2], admitted, blocked)
    inside, waiting = inside - 1, waiting + 1
  end
  while room > 0 do
    local next = call('ZRANGE', blocked, 0, 0, 'WITHSCORES')
    if not next[1] then break end
    if S.moves >= MOVES_MAX and key.refs > 1 then return false, waiting end
    local last
    if inside == room then
      last = call('ZREVRANGE', admitted, 0, 0, 'WITHSCORES')
      local a, b = tonumber(next[2]), tonumber(last[2])
      if a > b or a == b and not bytes_before(next[1], last[1]) then break end
    else
      inside, waiting = inside + 1, waiting - 1
    end
    -- Who comes before who goes: of the same lane, it is never empty between them and keeps its turn.
    admit(next[1], next[2], admitted, blocked)
    if last then block(last[1], last[2], admitted, blocked) end
  end
  return true, waiting
end

-- The keys of a queue from this one on are looked at with the next call.
local function review_from(queue, number)
  call('HSET', S.D .. 'q:' .. queue, 'kr', number)
  call('ZADD', S.D .. 'm', number_text(S.now), 'k' .. queue)
  S.times = nil
  S.sooner = true
end

local function settle_key(key)
  local done, waiting = fit(key)
  if waiting ~= 0 then count_blocked(key.queue, waiting) end
  if not done then
    local from = tonumber(call('HGET', S.D .. 'q:' .. key.queue, 'kr')) or key.number
    review_from(key.queue, math.min(from, key.number))
  end
  local shared = key.refs > 1
  if shared ~= key.shared then
    if shared then
      call('ZADD', S.D .. 'kq:' .. key.queue, key.number, key.number)
    else
      call('ZREM', S.D .. 'kq:' .. key.queue, key.number)
    end
    key.shared = shared
  end
  if key.refs > 0 then
    call('HSET', S.D .. 'ks', key.number, struct.pack(KEY, key.refs, key.held) .. key.name)
  else
    call('HDEL', S.D .. 'ks', key.number)
    call('HDEL', S.D .. 'kn', key.name)
    S.keys[key.number] = nil
    if S.key_numbers then S.key_numbers[key.name] = nil end
  end
end

-- To be called when every record is written, before what it moves is.
function keys.settle()
  local changed = S.unfit
  S.unfit, S.moves = nil, 0
  for _, key in pairs(changed) do settle_key(key) end
end

-- Carries a new limit to the next keys of a queue. Keys that one job has need not hear of it.
function keys.review(queue)
  local at = S.D .. 'q:' .. queue
  local from = call('HGET', at, 'kr')
  if not from then return end
  call('HDEL', at, 'kr')
  local numbers = call('ZRANGEBYSCORE', S.D .. 'kq:' .. queue, from, '+inf', 'LIMIT', 0, REVIEW_MAX)
  for _, number in ipairs(numbers) do unfit(key_numbered(tonumber(number))) end
  if #numbers == REVIEW_MAX then review_from(queue, numbers[#numbers] + 1) end
end

-- The limit of this queue's keys has changed.
function keys.set_limit(queue, limit)
  if keys.limit(queue) == limit then return end
  S.key_limits[queue] = limit
  call('HSET', S.D .. 'q:' .. queue, 'k', limit, 'kr', 0)
  keys.review(queue)
end

-- Unlinks a bounded part of what an old generation left -> whether there was any.
function keys.sweep(D)
  local found, lines = call('HRANDFIELD', D .. 'ks', SWEEP_MAX, 'WITHVALUES'), {}
  for n = 1, #found, 2 do
    local number, queue = found[n], found[n + 1]:match('^[^%z]*', KEY_BYTES + 1)
    lines[#lines + 1] = D .. 'ka:' .. number
    lines[#lines + 1] = D .. 'kb:' .. number
    lines[#lines + 1] = D .. 'kq:' .. queue
    call('HDEL', D .. 'ks', number)
  end
  if #lines > 0 then call('UNLINK', unpack(lines)) end
  return #lines > 0
end
end

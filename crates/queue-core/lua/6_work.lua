-- Purpose: the verbs of the path of a job. Arguments of each, behind the three that `run` takes, stand before it.
-- Returns: as each says; texts are packed, numbers of milliseconds are integers, an absent number is ''.
-- Invariant: each verb may be repeated after its answer was lost: pushes by epoch, acks by nonce; claims that nobody
--   heard of end like those of a worker that died.

local verbs = {}

-- generation -> 1. The current one may be asked for again; an older one is refused.
function verbs.begin(args)
  local generation, current = args[4], call('GET', S.P .. 'gen')
  if current == generation then return 1 end
  if current then
    if tonumber(current) > tonumber(generation) then return redis.error_reply('LSGEN ' .. current) end
    call('SADD', S.P .. 'old', current)
  end
  call('SET', S.P .. 'gen', generation)
  call('PUBLISH', S.P .. 'all', 'B' .. generation)
  return 1
end

-- entries, then three names a lane -> 1
function verbs.push(args)
  local text, ids = args[4], {}
  for at = 1, #text, ENTRY_BYTES do ids[#ids + 1] = text:sub(at, at + 15) end
  prefetch(ids)
  prefetch_lanes_of(ids)
  prefetch_named(args, 5)
  for at = 1, #text, ENTRY_BYTES do push(read_entry(text, at, args, 5)) end
  wake()
  return 1
end

local function ack_all(args, text)
  local ids, acks, at = {}, {}, 1
  while at <= #text do
    local ack = {}
    local has_next
    ack.id, ack.epoch, ack.nonce, has_next = struct.unpack(LEASE .. 'B', text, at)
    at = at + LEASE_BYTES + 1
    if has_next == 1 then
      ack.entry = read_entry(text, at, args, 9)
      at = at + ENTRY_BYTES
    end
    ids[#ids + 1], acks[#acks + 1] = ack.id, ack
  end
  prefetch(ids)
  prefetch_lanes_of(ids)
  prefetch_named(args, 9)
  for _, ack in ipairs(acks) do
    local job = job_of(ack.id)
    if is_lease(job, ack.epoch, ack.nonce) then
      end_lease(job)
      if ack.entry then push(ack.entry) end
    end
  end
end

-- session, queues (\0 between them; '' means all), slots, seed of nonces, acks, three names a lane
-- -> known, next_at, claims, names of the claims' queues ...
function verbs.step(args)
  local id, queues, slots = args[4], args[5], math.min(tonumber(args[6]), CLAIM_MAX)
  local wants = tonumber(args[6]) > 0
  pass_time()
  local session = session_of(id)
  if session then
    hear(session, wants)
    if not wants then listen(id) end
  end
  ack_all(args, args[8])
  settle()
  local text, names, count = '', {}, 0
  if session and wants then
    session.queues = queues
    text, names, count = claim(id, split(queues), slots, args[7])
  end
  local at = next_at()
  if session then
    call('HSET', S.P .. 's:' .. id, 'told', at or '', 'queues', session.queues)
    if wants and count == tonumber(args[6]) then
      call('SREM', S.P .. 'w', id)
    else
      listen(id)
      -- A step that asked for more than a claim may hold has to come again, and so has one that only acked.
      if (not wants or count == slots) and any_open(session.queues, may_claim_suspects(id)) then tell(session) end
    end
  end
  wake(wants and id or nil)
  return { session and 1 or 0, at or '', text, unpack(names) }
end

-- session, leases -> 1
function verbs.start(args)
  local session, text, ids = args[4], args[5], {}
  for at = 1, #text, LEASE_BYTES do ids[#ids + 1] = text:sub(at, at + 15) end
  prefetch(ids)
  for at = 1, #text, LEASE_BYTES do
    local id, epoch, nonce = struct.unpack(LEASE, text, at)
    local job = job_of(id)
    if is_lease(job, epoch, nonce) and job.session == session and not job.lost and not job.started then
      job.started, job.started_at = true, S.now
      set_job(id, job)
    end
  end
  settle()
  return 1
end

-- session, leases -> known, numbers of the leases that are not held any more, numbers of those that were cancelled
function verbs.renew(args)
  local id, text = args[4], args[5]
  local session = session_of(id)
  if session then hear(session, true) end
  local ids = {}
  for at = 1, #text, LEASE_BYTES do ids[#ids + 1] = text:sub(at, at + 15) end
  prefetch(ids)
  local gone, cancelled = {}, {}
  for n = 0, #ids - 1 do
    local job_id, epoch, nonce = struct.unpack(LEASE, text, n * LEASE_BYTES + 1)
    local job = job_of(job_id)
    if is_lease(job, epoch, nonce) and job.session == id and not job.lost then
      put(S.D .. 'l', job_id, S.now + LEASE_MS)
      if job.cancelled then cancelled[#cancelled + 1] = n end
    else
      gone[#gone + 1] = n
    end
  end
  settle()
  return { session and 1 or 0, gone, cancelled }
end

-- Takes over what a session held before a flush, unless it went on to another epoch or another session.
local function take_over(session, entry, nonce, started, started_at)
  local job = job_of(entry.id)
  if job and (job.leased or job.epoch > entry.epoch) then return end
  if job then drop_waiting(job) end
  local lane = lane_named(entry.queue, entry.tenant, entry.target)
  lane.refs = lane.refs + 1
  lane.dirty = true
  occupy(lane)
  local taken = new_job(entry.id, entry.suspect, entry.priority, lane.number, entry.epoch, entry.run_at)
  taken.leased, taken.session, taken.nonce, taken.started, taken.started_at = true, session, nonce, started, started_at
  set_job(entry.id, taken)
  put(S.D .. 'l', entry.id, S.now + LEASE_MS)
  mark(S.D .. 'sl:' .. session, entry.id, true)
  if entry.suspect then mark(S.D .. 'su:' .. session, entry.id, true) end
end

-- session, inbox, queues as of its last claim, what it holds: (entry, nonce, started, started_at) each, three names a
-- lane -> 1
function verbs.join(args)
  local id, inbox, queues, text = args[4], args[5], args[6], args[7]
  pass_time()
  local ids = {}
  for at = 1, #text, HELD_BYTES do ids[#ids + 1] = text:sub(at, at + 15) end
  prefetch(ids)
  prefetch_lanes_of(ids)
  prefetch_named(args, 8)
  for at = 1, #text, HELD_BYTES do
    local nonce, started, started_at = struct.unpack('>c8Bd', text, at + ENTRY_BYTES)
    take_over(id, read_entry(text, at, args, 8), nonce, started == 1, started_at)
  end
  settle()
  local known = session_of(id)
  call('HSET', S.P .. 's:' .. id, 'inbox', inbox, 'queues', known and known.queues or queues, 'told', '', 'gen', S.generation)
  local session = session_of(id)
  hear(session, true)
  listen(id)
  -- It may be there to take over from one that left: what is here, or comes by itself, was told to nobody else.
  if any_open('', true) or next_at() then tell(session) end
  return 1
end

-- session -> 1
function verbs.leave(args)
  local id = args[4]
  call('DEL', S.P .. 's:' .. id)
  call('ZREM', S.P .. 'ss', id)
  call('ZREM', S.P .. 'sd', id)
  call('SREM', S.P .. 'w', id)
  lose_session(id)
  settle()
  return 1
end

-- limit -> lost leases: (id, epoch, nonce, counts, session, started, started_at) each
function verbs.reap(args)
  for _, id in ipairs(call('ZRANGEBYSCORE', S.P .. 'ss', '-inf', S.now, 'LIMIT', 0, DUE_MAX)) do
    call('HSET', S.P .. 's:' .. id, 'dead', '1')
    call('ZREM', S.P .. 'ss', id)
    call('ZADD', S.P .. 'sd', S.now, id)
    lose_session(id)
  end
  for _, id in ipairs(call('ZRANGEBYSCORE', S.P .. 'sd', '-inf', S.now - FORGET_MS, 'LIMIT', 0, DUE_MAX)) do
    call('DEL', S.P .. 's:' .. id)
    call('ZREM', S.P .. 'sd', id)
    call('SREM', S.P .. 'w', id)
  end
  write_kept()
  local expired = call('ZRANGEBYSCORE', S.D .. 'l', '-inf', S.now, 'LIMIT', 0, DUE_MAX)
  prefetch(expired)
  local blamed = {}
  for _, id in ipairs(expired) do
    local job = job_of(id)
    if job and job.leased then
      if blamed[job.session] == nil then blamed[job.session] = is_blamed(job.session) end
      lose(job, blamed[job.session])
    else
      put(S.D .. 'l', id, false)
    end
  end
  settle()
  local ids, text = call('ZRANGE', S.D .. 'x', 0, tonumber(args[4]) - 1), {}
  if tonumber(args[4]) == 0 then ids = {} end
  prefetch(ids)
  for n, id in ipairs(ids) do
    local job = job_of(id)
    text[n] = struct.pack('>c16dc8Bc16Bd', id, job.epoch, job.nonce, job.counts and 1 or 0, job.session,
      job.started and 1 or 0, job.started_at or 0)
  end
  return table.concat(text)
end

-- (0 unknown, 1 waiting, 2 leased; epoch; session; started; started_at)
local function place_of(id)
  local job = job_of(id)
  if not job then return struct.pack('>Bdc16Bd', 0, 0, string.rep(NUL, 16), 0, 0) end
  return struct.pack('>Bdc16Bd', job.leased and 2 or 1, job.epoch, job.session or string.rep(NUL, 16),
    job.started and 1 or 0, job.started_at)
end

-- id -> where it was
function verbs.withdraw(args)
  local place, job = place_of(args[4]), job_of(args[4])
  if job and not job.leased then
    drop_waiting(job)
    settle()
  end
  return place
end

-- ids -> places, in order
function verbs.locate(args)
  local ids, text = {}, {}
  for at = 1, #args[4], 16 do ids[#ids + 1] = args[4]:sub(at, at + 15) end
  prefetch(ids)
  for n, id in ipairs(ids) do text[n] = place_of(id) end
  return table.concat(text)
end

-- id -> 1
function verbs.nudge(args)
  local job = job_of(args[4])
  if job and job.leased then
    -- Remembered, so that a renewal tells it again to a worker that missed the message.
    job.cancelled = true
    set_job(job.id, job)
    settle()
    local session = session_of(job.session)
    if session then call('PUBLISH', session.inbox, 'C' .. job.session .. job.id) end
  end
  return 1
end

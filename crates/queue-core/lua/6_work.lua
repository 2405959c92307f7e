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
  prefetch_named(args, 5)
  local lanes, horizon, at = lanes_in(args, 5), S.now + HORIZON_MS, 1
  local records = fetch(ids)
  local as_of = S.settled
  for _, known in ipairs(records) do
    local id, epoch, run_at, priority, track, suspicion, number = struct.unpack(ENTRY, text, at)
    at = at + ENTRY_BYTES
    -- A job that comes twice settles what was fresh until then: from there on what was read is too old.
    if known or S.fresh[id] or S.settled ~= as_of then
      push(lanes, number, id, epoch, run_at, priority, track, suspicion)
    elseif run_at <= horizon then
      local lane, key = lanes(number)
      insert(lane, id, epoch, run_at, priority, track, suspicion, key)
    end
  end
  wake()
  return 1
end

-- Ends the leases that are acked and makes known what follows. Nearly all are what they seem to be, of this session and
-- of jobs without a story: those go without a look at anything but the number of their lane.
local function ack_all(args, session, text)
  local ids, places, at = {}, {}, 1
  while at <= #text do
    ids[#ids + 1], places[#places + 1] = text:sub(at, at + 15), at
    at = at + LEASE_BYTES + 1 + (text:byte(at + LEASE_BYTES) == 1 and ENTRY_BYTES or 0)
  end
  prefetch_named(args, 10)
  local lanes, done, starts, ended, others, nexts, seen, finished = lanes_in(args, 10), {}, {}, {}, {}, {}, {}, {}
  local ours = session .. NUL
  for n, record in ipairs(fetch(ids)) do
    local id, place = ids[n], places[n]
    if record and #record > WAITING_BYTES and not seen[id]
      and record:sub(CLAIM_FROM, CLAIM_TO) == text:sub(place + 16, place + LEASE_BYTES - 1) then
      seen[id] = true
      local rank, number = struct.unpack(LANE_OF, record)
      if record:sub(HOLDER_FROM, HOLDER_TO) == ours and bit.band(rank, SPECIAL) == 0 then
        done[#done + 1], starts[#starts + 1] = id, text:sub(place, place + LEASE_BYTES - 1)
        ended[number] = (ended[number] or 0) + 1
        S.jobs[id] = nil
      else
        others[#others + 1] = id
      end
      if text:byte(place + LEASE_BYTES) == 1 then
        nexts[#nexts + 1] = place + LEASE_BYTES + 1
      else
        finished[number] = true
      end
    end
  end
  send('HDEL', S.D .. 'j', done)
  send('ZREM', S.D .. 'l:' .. session, done)
  send('HDEL', S.D .. 'st:' .. session, starts)
  local numbers = {}
  for number in pairs(ended) do numbers[#numbers + 1] = number end
  prefetch_lanes(numbers)
  for number, claims in pairs(ended) do
    local lane = lane_of(number)
    release(lane, claims)
    lane.refs = lane.refs - claims
    lane.dirty = true
  end
  for _, id in ipairs(others) do end_lease(job_of(id)) end
  for number in pairs(finished) do note_end(lane_of(number)) end
  settle()
  for _, place in ipairs(nexts) do
    local id, epoch, run_at, priority, track, suspicion, number = struct.unpack(ENTRY, text, place)
    push(lanes, number, id, epoch, run_at, priority, track, suspicion)
  end
end

-- session, queues (\0 between them; '' means all), tracks, slots, seed of nonces, acks, three names a lane
-- -> known, next_at, claims, names of the claims' queues ...
function verbs.step(args)
  local id, queues, slots = args[4], args[5], math.min(tonumber(args[7]), CLAIM_MAX)
  local wants = tonumber(args[7]) > 0
  pass_time()
  local session = session_of(id)
  ack_all(args, id, args[9])
  settle()
  local text, names, count = '', {}, 0
  if session and wants then
    session.queues, session.tracks = queues, tonumber(args[6])
    text, names, count = claim(id, split(queues), session.tracks, slots, args[8])
  end
  local at = next_at()
  if session then
    hear(session, wants, 'told', at or '', 'queues', session.queues, 'tracks', session.tracks)
    if wants and count == tonumber(args[7]) then
      call('SREM', S.P .. 'w', id)
    else
      listen(id)
      -- A step that asked for more than a claim may hold has to come again, and so has one that only acked.
      if (not wants or count == slots) and any_open(session.queues, tracks_of(session)) then tell(session) end
    end
  end
  wake(wants and id or nil)
  return { session and 1 or 0, at or '', text, unpack(names) }
end

-- session, leases -> 1. Noted beside the records, by session and nonce: a lease that is lost or another's is not read
-- under that name. Where it is told again, since its answer was lost, the moment of the first word stands.
function verbs.start(args)
  local text, key, leases, starts, now = args[5], S.D .. 'st:' .. args[4], {}, {}, number_text(S.now)
  for at = 1, #text, LEASE_BYTES do leases[#leases + 1] = text:sub(at, at + LEASE_BYTES - 1) end
  for from = 1, #leases, UNPACK_MAX do
    local known = call('HMGET', key, unpack(leases, from, math.min(from + UNPACK_MAX - 1, #leases)))
    for n, moment in ipairs(known) do
      if not moment then
        local at = #starts
        starts[at + 1], starts[at + 2] = leases[from + n - 1], now
      end
    end
  end
  send('HSET', key, starts)
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
      put(S.D .. 'l:' .. id, job_id, S.now + LEASE_MS)
      if job.cancelled then cancelled[#cancelled + 1] = n end
    else
      gone[#gone + 1] = n
      call('HDEL', S.D .. 'st:' .. id, text:sub(n * LEASE_BYTES + 1, (n + 1) * LEASE_BYTES))
    end
  end
  settle()
  return { session and 1 or 0, gone, cancelled }
end

-- Takes over what a session held before a flush, unless it went on to another epoch or another session. `at` is where
-- the claim stands in the argument.
local function take_over(session, lanes, text, at)
  local id, epoch, run_at, priority, track, suspicion, number = struct.unpack(ENTRY, text, at)
  local nonce, started, started_at = struct.unpack('>c8Bd', text, at + ENTRY_BYTES)
  local job = job_of(id)
  if job and (job.leased or job.epoch > epoch) then return end
  if job then drop_waiting(job) end
  local lane, key = lanes(number)
  lane.refs = lane.refs + 1
  lane.dirty = true
  occupy(lane)
  if key then keys.occupy(lane, key, id) end
  priority = math.min(priority, PRIORITY_MAX)
  local taken = new_job(id, track, priority, suspicion, lane.number, epoch, run_at, key ~= nil)
  taken.leased, taken.session, taken.nonce = true, session, nonce
  set_job(id, taken)
  put(S.D .. 'l:' .. session, id, S.now + LEASE_MS)
  if is_isolated(track) then mark(S.D .. 'is:' .. session, id, true) end
  if started == 1 then call('HSET', S.D .. 'st:' .. session, lease_of(taken), number_text(started_at)) end
end

-- session, inbox, queues and tracks as of its last claim, what it holds: (entry, nonce, started, started_at) each, three names a
-- lane -> 1
function verbs.join(args)
  local id, inbox, queues, tracks, text = args[4], args[5], args[6], args[7], args[8]
  pass_time()
  local ids = {}
  for at = 1, #text, HELD_BYTES do ids[#ids + 1] = text:sub(at, at + 15) end
  prefetch(ids)
  prefetch_lanes_of(ids)
  prefetch_named(args, 9)
  local lanes = lanes_in(args, 9)
  for at = 1, #text, HELD_BYTES do take_over(id, lanes, text, at) end
  settle()
  local known = session_of(id)
  -- It may have left, and come back.
  call('ZREM', S.P .. 'sd', id)
  call('HSET', S.P .. 's:' .. id, 'inbox', inbox, 'queues', known and known.queues or queues, 'tracks',
    known and known.tracks or tracks, 'told', '', 'gen', S.generation)
  local session = session_of(id)
  hear(session, true)
  listen(id)
  -- It may be there to take over from one that left: what is here, or comes by itself, was told to nobody else.
  if any_open('', ALL_TRACKS) or next_at() then tell(session) end
  return 1
end

-- session -> 1. It stays among the dead ones for a while: that is where whoever sweeps finds its leases.
function verbs.leave(args)
  local id = args[4]
  call('DEL', S.P .. 's:' .. id)
  call('ZREM', S.P .. 'ss', id)
  call('ZADD', S.P .. 'sd', S.now, id)
  call('SREM', S.P .. 'w', id)
  lose_session(id)
  settle()
  call('DEL', S.D .. 'st:' .. id)
  return 1
end

-- Ends the sessions of processes that are gone: nobody listens to their inbox, and since that was first seen they have
-- said nothing. The machine of a process that was killed closes its connections, so this is sooner than the end of a
-- session; after a restart of Redis everybody has that time to come back. `gone` is when it was first seen.
local function end_closed()
  for _, id in ipairs(call('ZRANGE', S.P .. 'ss', 0, DUE_MAX - 1)) do
    local key = S.P .. 's:' .. id
    local found = call('HMGET', key, 'inbox', 'seen', 'gone')
    local gone = tonumber(found[3])
    if not found[1] or not is_unheard(found[1]) then
      if gone then call('HDEL', key, 'gone') end
    elseif not gone or tonumber(found[2]) > gone then
      call('HSET', key, 'gone', S.now)
    elseif S.now - gone >= CLOSED_MS then
      call('ZADD', S.P .. 'ss', S.now, id)
    end
  end
end

-- A session has been dead for long. What it held and nobody has replaced keeps it; a sweep that did not end may have left
-- what it held in older generations.
local function forget_session(id)
  if call('EXISTS', S.D .. 'l:' .. id) == 1 then return call('ZADD', S.P .. 'sd', S.now, id) end
  for _, old in ipairs(call('SMEMBERS', S.P .. 'old')) do unlink_leases(S.P .. old .. ':', id) end
  call('DEL', S.P .. 's:' .. id, S.D .. 'st:' .. id)
  call('ZREM', S.P .. 'sd', id)
  call('SREM', S.P .. 'w', id)
end

-- limit, '1' where a closed connection can be seen here (a Cluster's may be at any node) -> lost leases: (id, epoch,
-- nonce, blame, session, started, started_at) each
function verbs.reap(args)
  if args[5] == '1' then end_closed() end
  for _, id in ipairs(call('ZRANGEBYSCORE', S.P .. 'ss', '-inf', S.now, 'LIMIT', 0, DUE_MAX)) do
    call('HSET', S.P .. 's:' .. id, 'dead', '1')
    call('ZREM', S.P .. 'ss', id)
    call('ZADD', S.P .. 'sd', S.now, id)
    lose_session(id)
  end
  for _, id in ipairs(call('ZRANGEBYSCORE', S.P .. 'sd', '-inf', S.now - FORGET_MS, 'LIMIT', 0, DUE_MAX)) do
    forget_session(id)
  end
  write_kept()
  local room = DUE_MAX
  for _, session in ipairs(call('ZRANGE', S.P .. 'ss', 0, DUE_MAX - 1)) do
    room = room - lose_expired(session, room)
    if room <= 0 then break end
  end
  settle()
  local ids, text = call('ZRANGE', S.D .. 'x', 0, tonumber(args[4]) - 1), {}
  if tonumber(args[4]) == 0 then ids = {} end
  prefetch(ids)
  for n, id in ipairs(ids) do
    local job = job_of(id)
    text[n] = struct.pack('>c16dc8Bc16Bd', id, job.epoch, job.nonce, job.blame, job.session,
      job.started and 1 or 0, job.started_at or 0)
  end
  return table.concat(text)
end

-- (0 unknown, 1 waiting, 2 leased; epoch; session; started; started_at)
local function place_of(id)
  local job = job_of(id)
  if not job then return struct.pack('>Bdc16Bd', 0, 0, string.rep(NUL, 16), 0, 0) end
  if not job.leased then return struct.pack('>Bdc16Bd', 1, job.epoch, string.rep(NUL, 16), 0, 0) end
  local at = started_of(job)
  return struct.pack('>Bdc16Bd', 2, job.epoch, job.session, at and 1 or 0, at or 0)
end

-- id -> where it was
function verbs.withdraw(args)
  local place, job = place_of(args[4]), job_of(args[4])
  if job and not job.leased then
    drop_waiting(job)
    -- Its place may be another's of its key now.
    wake()
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

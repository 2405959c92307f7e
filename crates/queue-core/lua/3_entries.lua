-- Purpose: entries and leases, one at a time: they come, wait, are held and go (core.rs of the memory dispatcher).
-- Invariant: a job is in one place: ready in a band of its lane, in the line of its key, in `d`, or in `l` of its session,
--   and in `x` too once it is lost.

-- Whether a waiting entry is due later: in `d`, and in no lane yet.
local function is_later(job)
  local kept = S.sorted[S.D .. 'd']
  if kept and kept[job.id] ~= nil then return kept[job.id] and true or false end
  return call('ZSCORE', S.D .. 'd', job.id) and true or false
end

-- The job must be nowhere.
local function insert(lane, id, epoch, run_at, priority, track, suspicion, key)
  lane.refs = lane.refs + 1
  lane.dirty = true
  priority = math.min(priority, PRIORITY_MAX)
  set_fresh(id, encode_waiting(track, priority, suspicion, lane.number, epoch, run_at, key))
  if key then keys.note(lane, key, id) end
  if run_at > S.now then
    append(S.D .. 'd', id, run_at)
    S.times = nil
    local queue = queue_of(lane.queue)
    queue.later = queue.later + 1
    S.served[lane.queue] = true
    S.sooner = true
  elseif key then
    keys.join(id, priority, run_at)
  else
    add(lane, id, track, priority, run_at)
  end
end

local function drop_waiting(job)
  local lane = lane_of(job.lane)
  if is_later(job) then
    put(S.D .. 'd', job.id, false)
    S.times = nil
    local queue = queue_of(lane.queue)
    queue.later = queue.later - 1
    S.served[lane.queue] = true
  elseif not job.keyed or keys.leave(job.id) then
    cut(lane, job)
  end
  if job.keyed then keys.forget(job.id) end
  lane.refs = lane.refs - 1
  lane.dirty = true
  set_job(job.id, false)
end

-- The lease of a held job as it stands in arguments.
local function lease_of(job) return struct.pack(LEASE, job.id, job.epoch, job.nonce) end

-- When the handler of a held job began, or false. A lost one has it in its record: nobody starts it any more.
local function started_of(job)
  if job.lost then return job.started and job.started_at end
  return tonumber(call('HGET', S.D .. 'st:' .. job.session, lease_of(job))) or false
end

-- All that a session holds, as ids, and when their handlers began, by id. Costs as much as it holds.
local function all_of(session)
  local ids, open, leases, began = call('ZRANGE', S.D .. 'l:' .. session, 0, -1), {}, {}, {}
  prefetch(ids)
  for _, id in ipairs(ids) do
    local job = job_of(id)
    if job and job.leased then
      if job.lost then
        began[id] = started_of(job)
      else
        open[#open + 1], leases[#leases + 1] = id, lease_of(job)
      end
    end
  end
  for from = 1, #leases, UNPACK_MAX do
    local to = math.min(from + UNPACK_MAX - 1, #leases)
    local moments = call('HMGET', S.D .. 'st:' .. session, unpack(leases, from, to))
    for n = from, to do began[open[n]] = tonumber(moments[n - from + 1]) or false end
  end
  return ids, began
end

local function end_lease(job)
  if job.lost then put(S.D .. 'x', job.id, false) end
  put(S.D .. 'l:' .. job.session, job.id, false)
  call('HDEL', S.D .. 'st:' .. job.session, lease_of(job))
  if is_isolated(job.track) then
    mark(S.D .. 'is:' .. job.session, job.id, false)
    S.freed[job.session] = true
  end
  if job.keyed then keys.forget(job.id, true) end
  local lane = lane_of(job.lane)
  release(lane, 1)
  lane.refs = lane.refs - 1
  lane.dirty = true
  set_job(job.id, false)
end

-- Makes an entry known: a no-op for a job that is held at the same or a later epoch.
local function push(lanes, number, id, epoch, run_at, priority, track, suspicion)
  local job = job_of(id)
  if job then
    if job.epoch >= epoch then return end
    if job.leased then end_lease(job) else drop_waiting(job) end
    -- Written before the new one is: a sorted set is told of one change of a member only.
    settle()
  end
  if run_at <= S.now + HORIZON_MS then
    local lane, key = lanes(number)
    insert(lane, id, epoch, run_at, priority, track, suspicion, key)
  end
end

-- Finds the lanes that arguments name from `first` on, three each; to be called with the number of one, and answers
-- with the concurrency key that stands beside it, if there is one. A lane that nobody refers to goes with the next
-- `settle()`, so it is remembered until then only.
local function lanes_in(args, first)
  local found, beside, as_of = {}, {}, S.settled
  return function(number)
    if as_of ~= S.settled then found, as_of = {}, S.settled end
    local lane = found[number]
    if not lane then
      local at = first + number * 3
      local target, key = target_and_key(args[at + 2])
      lane = lane_named(args[at], args[at + 1], target)
      found[number], beside[number] = lane, key
    end
    return lane, beside[number]
  end
end

local function is_lease(job, epoch, nonce)
  return job and job.leased and job.epoch == epoch and job.nonce == nonce
end

-- Who is likeliest to have ended a session's process: the highest suspicion of the handlers that began in it, and how
-- many of them have it.
local function likeliest_of(began)
  local likeliest = { suspicion = 0, count = 0 }
  for id, at in pairs(began) do
    local suspicion = at and job_of(id).suspicion or -1
    if suspicion > likeliest.suspicion then likeliest.suspicion, likeliest.count = suspicion, 0 end
    if suspicion == likeliest.suspicion then likeliest.count = likeliest.count + 1 end
  end
  return likeliest
end

-- Makes a lease lost and judges it: what had not started is not to blame, and of the rest only the likeliest are. Decided
-- once: the reaper may take leases in pieces.
local function lose(job, at, likeliest)
  if job.lost then return end
  if at then call('HDEL', S.D .. 'st:' .. job.session, lease_of(job)) end
  job.lost, job.started, job.started_at = true, at and true or false, at or 0
  if at and job.suspicion == likeliest.suspicion then
    job.blame = likeliest.count == 1 and BLAMES_ALONE or BLAMES_SHARED
  end
  set_job(job.id, job)
  -- Its session's until something replaces it, but it does not end again.
  put(S.D .. 'l:' .. job.session, job.id, 'inf')
  put(S.D .. 'x', job.id, 0)
end

-- All leases of a session are lost.
local function lose_session(session)
  local ids, began = all_of(session)
  local likeliest = likeliest_of(began)
  for _, id in ipairs(ids) do
    local job = job_of(id)
    if job and job.leased then lose(job, began[id], likeliest) end
  end
end

-- Leases of a session that were not renewed are lost, up to `most`; how many were looked at. Where there are any they are
-- judged among all that the session holds, also what it keeps or lost before.
local function lose_expired(session, most)
  local key = S.D .. 'l:' .. session
  local expired = call('ZRANGEBYSCORE', key, '-inf', S.now, 'LIMIT', 0, most)
  if #expired == 0 then return 0 end
  local _, began = all_of(session)
  local likeliest = likeliest_of(began)
  for _, id in ipairs(expired) do
    local job = job_of(id)
    if job and job.leased then lose(job, began[id], likeliest) else put(key, id, false) end
  end
  return #expired
end

-- When the next entry comes due and the next pause or parking ends. What adds to them or takes from them forgets it.
local function times_ahead()
  if not S.times then
    local _, due = first_of(S.D .. 'd')
    local _, timer = first_of(S.D .. 'm')
    S.times = { due = due, timer = timer }
  end
  return S.times
end

local function end_timers()
  for _, member in ipairs(call('ZRANGEBYSCORE', S.D .. 'm', '-inf', S.now, 'LIMIT', 0, DUE_MAX)) do
    call('ZREM', S.D .. 'm', member)
    local kind, name = member:sub(1, 1), member:sub(2)
    if kind == 'q' then
      local queue = queue_of(name)
      queue.paused = false
      call('HSET', S.D .. 'q:' .. name, 'p', '0')
      S.served[name] = true
    elseif kind == 'k' then
      keys.review(name)
    elseif kind == 'h' then
      local target = target_of(name)
      target.held, target.dirty = false, true
      call('HSET', S.D .. 't:' .. name, 'h', '0')
    elseif kind == 'n' then
      local tenant = tenant_of(name)
      if tenant and tenant.paused then
        tenant = tenant_to_change(name)
        tenant.paused = false
        set_tenant(name, tenant)
      end
    elseif kind == 'b' then
      local tenant = tenant_to_change(name)
      tenant.parked, tenant.why = nil, ''
      set_tenant(name, tenant)
    else
      local target = target_of(name)
      target.till, target.dirty = nil, true
      call('HDEL', S.D .. 't:' .. name, 'u', 'w')
    end
  end
end

local function take_due()
  local due = call('ZRANGEBYSCORE', S.D .. 'd', '-inf', S.now, 'LIMIT', 0, DUE_MAX)
  prefetch(due)
  prefetch_lanes_of(due)
  for _, id in ipairs(due) do
    put(S.D .. 'd', id, false)
    local job = job_of(id)
    if job then
      local lane = lane_of(job.lane)
      local queue = queue_of(lane.queue)
      queue.later = queue.later - 1
      if job.keyed then
        S.served[lane.queue] = true
        keys.join(id, job.priority, job.run_at)
      else
        add(lane, id, job.track, job.priority, job.run_at)
      end
    end
  end
end

-- Lets time do what it does by itself: entries come due (a bounded number at once), pauses and parkings end.
local function pass_time()
  local ahead = times_ahead()
  if ahead.timer and ahead.timer <= S.now then
    S.times = nil
    end_timers()
  end
  if ahead.due and ahead.due <= S.now then
    S.times = nil
    take_due()
  end
end

-- When something becomes claimable by itself, or nil. To be called on a settled state.
local function next_at()
  local ahead = times_ahead()
  if ahead.due and ahead.timer then return math.min(ahead.due, ahead.timer) end
  return ahead.due or ahead.timer
end

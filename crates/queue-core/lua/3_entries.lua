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
local function insert(lane, id, epoch, run_at, priority, track, key)
  lane.refs = lane.refs + 1
  lane.dirty = true
  priority = math.min(priority, PRIORITY_MAX)
  set_fresh(id, encode_waiting(track, priority, lane.number, epoch, run_at, key))
  if key then keys.note(lane, key, id) end
  if run_at > S.now then
    append(S.D .. 'd', id, run_at)
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

local function end_lease(job)
  if job.lost then put(S.D .. 'x', job.id, false) end
  put(S.D .. 'l:' .. job.session, job.id, false)
  call('HDEL', S.D .. 'st:' .. job.session, lease_of(job))
  if job.suspect then
    mark(S.D .. 'su:' .. job.session, job.id, false)
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
local function push(lanes, number, id, epoch, run_at, priority, track)
  local job = job_of(id)
  if job then
    if job.epoch >= epoch then return end
    if job.leased then end_lease(job) else drop_waiting(job) end
    -- Written before the new one is: a sorted set is told of one change of a member only.
    settle()
  end
  if run_at <= S.now + HORIZON_MS then
    local lane, key = lanes(number)
    insert(lane, id, epoch, run_at, priority, track, key)
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

-- Makes a lease lost and judges it: what had not started counts for nothing, and while a suspect ran in the session
-- nobody else is blamed. Decided once: the reaper may take leases in pieces.
local function lose(job, blamed)
  if job.lost then return end
  local at = started_of(job)
  if at then call('HDEL', S.D .. 'st:' .. job.session, lease_of(job)) end
  job.lost, job.started, job.started_at = true, at and true or false, at or 0
  job.counts = job.started and (job.suspect or not blamed)
  set_job(job.id, job)
  -- Its session's until something replaces it, but it does not end again.
  put(S.D .. 'l:' .. job.session, job.id, 'inf')
  put(S.D .. 'x', job.id, 0)
end

-- Whether a suspect's handler began in this session.
local function is_blamed(session)
  for _, id in ipairs(call('SMEMBERS', S.D .. 'su:' .. session)) do
    local job = job_of(id)
    if job and job.leased and started_of(job) then return true end
  end
  return false
end

-- All leases of a session are lost. Costs as much as it holds.
local function lose_session(session)
  local blamed = is_blamed(session)
  local ids = call('ZRANGE', S.D .. 'l:' .. session, 0, -1)
  prefetch(ids)
  for _, id in ipairs(ids) do
    local job = job_of(id)
    if job and job.leased then lose(job, blamed) end
  end
end

-- Leases of a session that were not renewed are lost, up to `most`; how many were looked at.
local function lose_expired(session, most)
  local key = S.D .. 'l:' .. session
  local expired = call('ZRANGEBYSCORE', key, '-inf', S.now, 'LIMIT', 0, most)
  if #expired == 0 then return 0 end
  prefetch(expired)
  local blamed = is_blamed(session)
  for _, id in ipairs(expired) do
    local job = job_of(id)
    if job and job.leased then lose(job, blamed) else put(key, id, false) end
  end
  return #expired
end

-- Lets time do what it does by itself: entries come due (a bounded number at once), pauses and parkings end.
local function pass_time()
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
      if tenant and tenant.asleep then
        set_tenant(name, tenant.version, false, tenant.till, tenant.reason)
        set_asleep(name, false)
      end
    else
      local target = target_of(name)
      target.till, target.dirty = nil, true
      call('HDEL', S.D .. 't:' .. name, 'u', 'w')
    end
  end
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

-- When something becomes claimable by itself, or nil.
local function next_at()
  local _, due = first_of(S.D .. 'd')
  local _, timer = first_of(S.D .. 'm')
  if due and timer then return math.min(due, timer) end
  return due or timer
end

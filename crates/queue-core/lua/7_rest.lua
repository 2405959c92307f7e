-- Purpose: settings, what people ask, the sweep of old generations, and `run`, which every call enters.
-- Invariant: nothing is done at another generation than the caller's.

local function set_timer(kind, name, till)
  S.times = nil
  if till then
    call('ZADD', S.D .. 'm', till, kind .. name)
    S.sooner = true
  else
    call('ZREM', S.D .. 'm', kind .. name)
  end
end

local settings = {}

-- name, version, paused, paused_until, reason, concurrency, key_concurrency
function settings.queue(args)
  local name, version, till = args[5], args[6], tonumber(args[8])
  local queue = queue_of(name)
  if queue.version and tonumber(queue.version) > tonumber(version) then return end
  local paused = args[7] == '1' and (not till or till > S.now)
  local key = S.D .. 'q:' .. name
  call('HSET', key, 'v', version, 'p', paused and '1' or '0', 'u', args[8], 'w', args[9], 'c', args[10])
  set_timer('q', name, paused and till or nil)
  queue.version, queue.paused, queue.till, queue.reason = version, paused, till, args[9]
  queue.limit = tonumber(args[10])
  keys.set_limit(name, tonumber(args[11]))
  S.served[name] = true
end

-- Sets the limit of all targets that begin so and have none of their own. Looks at each target: a thing of starts and of
-- operators.
local function limit_prefix(prefix, limit)
  for _, queue in ipairs(call('SMEMBERS', S.D .. 'qs')) do
    for _, name in ipairs(call('HKEYS', S.D .. 'gr:' .. queue)) do target_of(name) end
  end
  limit_of('', nil)
  S.prefixes[prefix] = limit
  if limit then call('HSET', S.D .. 'lp', prefix, limit) else call('HDEL', S.D .. 'lp', prefix) end
  note_members('lp')
  for _, target in pairs(S.targets) do target.limit = limit_of(target.name, target.own) end
end

-- target or a prefix and `*`, limit or ''
function settings.limit(args)
  local limit = tonumber(args[6])
  if args[5]:sub(-1) == '*' then return limit_prefix(args[5]:sub(1, -2), limit) end
  local target = target_of(args[5])
  target.own, target.limit, target.dirty = limit, limit_of(target.name, limit), true
  if limit then
    call('HSET', S.D .. 't:' .. target.name, 'l', args[6])
  else
    call('HDEL', S.D .. 't:' .. target.name, 'l')
  end
end

local function park(target, till, reason)
  -- What two parts want is the longer of both; a moment that has passed ends all of it.
  if till > S.now and target.till and target.till >= till then return end
  target.dirty = true
  if till > S.now then
    target.till, target.reason = till, reason
    call('HSET', S.D .. 't:' .. target.name, 'u', number_text(till), 'w', reason)
  else
    target.till = nil
    call('HDEL', S.D .. 't:' .. target.name, 'u', 'w')
  end
  set_timer('t', target.name, target.till)
end

-- target, until, reason
function settings.park(args)
  local target, till = target_of(args[5]), tonumber(args[6])
  if till <= S.now then
    target.tried = nil
    call('HDEL', S.D .. 't:' .. target.name, 'o')
  end
  park(target, till, args[7])
end

-- target, from, reason
function settings.try(args)
  local target = target_of(args[5])
  target.tried = args[7]
  call('HSET', S.D .. 't:' .. target.name, 'o', args[7])
  park(target, tonumber(args[6]), args[7])
end

-- target, version, held, until, reason
function settings.target(args)
  local target, till = target_of(args[5]), tonumber(args[8])
  if target.version and tonumber(target.version) > tonumber(args[6]) then return end
  local held = args[7] == '1' and (not till or till > S.now)
  target.version, target.held, target.dirty = args[6], held, true
  call('HSET', S.D .. 't:' .. target.name, 'v', args[6], 'h', held and '1' or '0', 'hu', args[8], 'hw', args[9])
  set_timer('h', target.name, held and till or nil)
end

-- tenant, version, weight, paused, until, reason
function settings.tenant(args)
  local name, till = args[5], tonumber(args[9])
  local known = tenant_of(name)
  if known and tonumber(known.version) > tonumber(args[6]) then return end
  if args[7] == '1' then call('HDEL', S.D .. 'we', name) else call('HSET', S.D .. 'we', name, args[7]) end
  S.weights[name] = tonumber(args[7])
  note_members('we')
  local tenant = tenant_to_change(name)
  tenant.version, tenant.paused = args[6], args[8] == '1' and (not till or till > S.now)
  tenant.till, tenant.reason = args[9], args[10]
  set_tenant(name, tenant)
  set_timer('n', name, tenant.paused and till or nil)
end

-- tenant, until, reason
function settings.park_tenant(args)
  local till, tenant = tonumber(args[6]), tenant_to_change(args[5])
  tenant.parked, tenant.why = till > S.now and till or nil, till > S.now and args[7] or ''
  set_tenant(args[5], tenant)
  set_timer('b', args[5], tenant.parked)
end

-- kind of setting, then its own -> 1
function verbs.apply(args)
  pass_time()
  settings[args[4]](args)
  wake()
  return 1
end

-- The due time of the entry that has waited longest in these lanes.
local function oldest_of(line, tracks, oldest)
  for _, track in ipairs(tracks_in(tracks)) do
    for _, number in ipairs(call('ZRANGE', S.D .. 'L' .. track .. ':' .. line, 0, LANES_MAX - 1)) do
      local lane = lane_of(tonumber(number))
      for priority = 0, PRIORITY_MAX do
        if bit.band(lane.mask[track] or 0, bit.lshift(1, priority)) ~= 0 then
          local _, run_at = first_of(band(lane, track, priority))
          if run_at and (not oldest or run_at < oldest) then oldest = run_at end
        end
      end
    end
  end
  return oldest
end

-- -> name, waiting, active, scheduled, parked, oldest of each queue. Of each target's lanes at most LANES_MAX are
-- looked at for the oldest.
function verbs.depths()
  pass_time()
  wake()
  local reply, some_sleep = {}, call('EXISTS', S.D .. 'tz') == 1
  for _, name in ipairs(call('SMEMBERS', S.D .. 'qs')) do
    local queue, waiting, oldest = queue_of(name), 0, nil
    local parked = tonumber(call('HGET', S.D .. 'q:' .. name, 'b')) or 0
    local counts = call('HGETALL', S.D .. 'gr:' .. name)
    for n = 1, #counts, 2 do
      local target, ready, tracks = target_of(counts[n]), ready_of(counts[n + 1])
      local asleep = some_sleep and tonumber(call('HGET', S.D .. 'gz:' .. name, counts[n])) or 0
      if queue.paused or sleeps(target) then
        parked = parked + ready
      else
        waiting, parked = waiting + ready - asleep, parked + asleep
        oldest = oldest_of(name .. NUL .. counts[n], tracks, oldest)
      end
    end
    reply[#reply + 1] = { name, waiting, queue.active, queue.later, parked, oldest or '' }
  end
  return reply
end

-- Entries of the lane that rank before this one, counted up to PLACE_MAX.
local function ahead_of(lane, job)
  local ahead, rank = 0, job.run_at - job.priority * AGEING_MS
  for _, track in ipairs(tracks_in(lane.tracks)) do
    for priority = 0, PRIORITY_MAX do
      if bit.band(lane.mask[track], bit.lshift(1, priority)) ~= 0 then
        local key, edge = band(lane, track, priority), rank + priority * AGEING_MS
        ahead = ahead + call('ZCOUNT', key, '-inf', '(' .. number_text(edge))
        -- Of the same moment, those with a smaller id.
        local same = call('ZRANGEBYSCORE', key, edge, edge, 'LIMIT', 0, DUE_MAX)
        for _, id in ipairs(same) do
          if bytes_before(id, job.id) then ahead = ahead + 1 end
        end
      end
    end
  end
  return math.min(ahead, PLACE_MAX)
end

local function turn_of(lane, job)
  local lanes = 0
  local counts = call('HKEYS', S.D .. 'gr:' .. lane.queue)
  for _, name in ipairs(counts) do
    if is_open(target_of(name)) then
      local line = ':' .. lane.queue .. NUL .. name
      local before
      for _, track in ipairs(tracks_in(group_of(lane.queue, name).tracks)) do
        if not before then
          before, lanes = 0, lanes + call('ZCARD', S.D .. 'L' .. track .. line)
        else
          -- A lane that stands in several tracks counts once.
          for _, number in ipairs(call('ZRANGE', S.D .. 'L' .. track .. line, 0, LANES_MAX - 1)) do
            if bit.band(lane_of(tonumber(number)).tracks, before) == 0 then lanes = lanes + 1 end
          end
        end
        before = with_track(before, track)
      end
    end
  end
  return { 'turn', ahead_of(lane, job), math.max(lanes, 1) }
end

-- id -> what it waits for, each as a list that begins with its kind
function verbs.explain(args)
  pass_time()
  wake()
  local job = job_of(args[4])
  if not job or job.leased then return {} end
  local waits, later, lane = {}, is_later(job), lane_of(job.lane)
  local queue, target = queue_of(lane.queue), target_of(lane.target)
  local function say(...) waits[#waits + 1] = { ... } end
  if later then say('delayed', job.run_at) end
  if queue.paused then say('paused', queue.till or '', queue.reason or '') end
  if queue.limit and queue.active >= queue.limit then say('queue_limit', queue.limit) end
  local tenant = tenant_of(lane.tenant)
  if tenant and tenant.paused then say('tenant_paused', tonumber(tenant.till) or '', tenant.reason) end
  if tenant and tenant.parked then say('tenant_parked', tenant.parked, tenant.why) end
  if target.till then say('parked', target.name, target.till, target.reason or '') end
  if target.held then
    local found = call('HMGET', S.D .. 't:' .. target.name, 'hu', 'hw')
    say('target_paused', target.name, tonumber(found[1]) or '', found[2] or '')
  end
  if is_being_tried(target) and not sleeps(target) then say('tried', target.name, target.tried) end
  if target.limit and target.active >= target.limit then say('target_limit', target.name, target.limit) end
  local serving, able = false, false
  for _, id in ipairs(call('ZRANGE', S.P .. 'ss', 0, -1)) do
    local session = session_of(id)
    if session and is_alive(session) and serves(session, lane.queue) and has_track(session.tracks, job.track) then
      serving = true
      able = able or may_claim_isolated(id)
    end
  end
  if not serving then say('no_worker') elseif is_isolated(job.track) and not able then say('other_isolated') end
  if not later then waits[#waits + 1] = job.keyed and keys.explain(job.id) or turn_of(lane, job) end
  return waits
end

-- ids of sessions -> the generation; those of them that are not alive and whose process nobody sees; id, leases, seen_at
-- of each session that is alive
function verbs.sessions(args)
  local reply, alive, gone = { S.generation, '' }, {}, {}
  for _, id in ipairs(call('ZRANGE', S.P .. 'ss', 0, -1)) do
    local session = session_of(id)
    if session and is_alive(session) then
      reply[#reply + 1] = { id, call('ZCARD', S.D .. 'l:' .. id), session.seen }
      alive[id] = true
    end
  end
  for at = 1, math.min(#args[4], ASKED_MAX * 16), 16 do
    local id = args[4]:sub(at, at + 15)
    if not alive[id] and is_unheard(S.P .. 'ear:' .. id) then gone[#gone + 1] = id end
  end
  reply[2] = table.concat(gone)
  return reply
end

-- Unlinks a bounded part of what old generations left -> 1 while there is more
function verbs.sweep()
  local old = call('SRANDMEMBER', S.P .. 'old')
  if not old then return 0 end
  local D = S.P .. old .. ':'
  local lanes = call('HRANDFIELD', D .. 'ln', SWEEP_MAX, 'WITHVALUES')
  local numbers = {}
  for n = 2, #lanes, 2 do numbers[n / 2] = lanes[n] end
  local records = #numbers > 0 and call('HMGET', D .. 'n', unpack(numbers))
  for n = 1, #lanes, 2 do
    local queue, line = lanes[n]:match('^([^%z]*)%z'), lanes[n]:gsub('^([^%z]*)%z[^%z]*%z', '%1' .. NUL)
    local keys = { D .. 'gr:' .. queue, D .. 'gz:' .. queue, D .. 'q:' .. queue, D .. 't:' .. line:match('%z(.*)$'),
      D .. 'tq:' .. line:match('%z(.*)$') }
    local record = records[(n + 1) / 2]
    for _, track in ipairs(tracks_in(record and decode_lane(lanes[n + 1], record).tracks or ALL_TRACKS)) do
      keys[#keys + 1] = D .. 'L' .. track .. ':' .. line
      keys[#keys + 1] = D .. 'G' .. track .. ':' .. queue
      local line_of_track = D .. 'b:' .. lanes[n + 1] .. ':' .. track .. ':'
      for priority = 0, PRIORITY_MAX do keys[#keys + 1] = line_of_track .. priority end
    end
    call('UNLINK', unpack(keys))
    call('HDEL', D .. 'ln', lanes[n])
  end
  if #lanes > 0 then return 1 end
  if keys.sweep(D) then return 1 end
  for set, prefix in pairs({ qs = 'q:', ts = 't:' }) do
    local names = call('SPOP', D .. set, SWEEP_MAX)
    for _, name in ipairs(names) do call('UNLINK', D .. prefix .. name) end
    if #names > 0 then return 1 end
  end
  for _, set in ipairs({ 'ss', 'sd' }) do
    for _, id in ipairs(call('ZRANGE', S.P .. set, 0, -1)) do
      unlink_leases(D, id)
    end
  end
  for _, track in ipairs(tracks_in(ALL_TRACKS)) do call('UNLINK', D .. 'O' .. track) end
  local rest = { 'j', 'd', 'x', 'm', 'meta', 'we', 'lp', 'n', 'kj', 'kn', 'ks', 'tz' }
  for _, key in ipairs(rest) do call('UNLINK', D .. key) end
  call('SREM', S.P .. 'old', old)
  return 1
end

-- Keys: 1 the partition's prefix. Arguments: 1 verb, 2 the caller's generation ('0': any, as long as there is one),
-- 3 the time in milliseconds, which only tests set ('': Redis' own).
-- Error: `LSGEN <generation or none>` at another generation.
local function run(keys, args)
  call = redis.call
  S = {
    P = keys[1] .. ':', jobs = {}, changed = {}, records = {}, fresh = {}, queues = {}, targets = {}, groups = {},
    groups_of = {}, lanes = {}, lane_numbers = {}, sequence = 0, settled = 0, weights = {}, sorted = {}, added = {},
    sets = {}, touched = {}, served = {}, stirred = {}, freed = {},
  }
  S.now = tonumber(args[3])
  if not S.now then
    local time = call('TIME')
    S.now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  end
  if args[1] == 'begin' or args[1] == 'sweep' then return verbs[args[1]](args) end
  local generation = call('GET', S.P .. 'gen')
  if not generation or args[2] ~= '0' and args[2] ~= generation then
    return redis.error_reply('LSGEN ' .. (generation or 'none'))
  end
  S.D, S.generation = S.P .. generation .. ':', generation
  return verbs[args[1]](args)
end

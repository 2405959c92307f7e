-- Purpose: whose turn it is. Queues take turns, within a queue its targets, within a target its lanes, each by virtual
--   time; "open" means that something in it can be claimed now (rotation.rs of the memory dispatcher is the original).
-- Invariant: after `settle()`, O, G and L hold exactly what is open, and `S.stirred` the queues in which something
--   became claimable.

local function queue_of(name)
  local queue = S.queues[name]
  if queue then return queue end
  local found = call('HMGET', S.D .. 'q:' .. name, 'v', 'p', 'u', 'w', 'c', 'a', 'd', 'r', 't', 'at', 'o', 'g',
    'last')
  queue = {
    name = name, version = found[1], paused = found[2] == '1', till = tonumber(found[3]), reason = found[4],
    limit = tonumber(found[5]), active = tonumber(found[6]) or 0, later = tonumber(found[7]) or 0,
    ready = tonumber(found[8]) or 0, turn = tonumber(found[9]) or 0, at = tonumber(found[10]) or 0,
    last = tonumber(found[13]) or 0, listed = tonumber(found[11]) or 0, groups = tonumber(found[12]) or 0,
    known = found[6], stir = {}, opened = {},
  }
  S.queues[name] = queue
  return queue
end

local function admits(queue)
  return not queue.paused and (not queue.limit or queue.active < queue.limit)
end

-- Whether nothing of it can be claimed, however many of its jobs run.
local function sleeps(target) return target.till or target.held end

-- Whether the one job that tries it is running.
local function is_being_tried(target) return target.tried and target.active > 0 end

local function is_open(target)
  return not sleeps(target) and not is_being_tried(target) and (not target.limit or target.active < target.limit)
end

-- The limit that is set for this target: its own, or that of the longest prefix that speaks for it.
local function limit_of(name, own)
  if own then return own end
  if not S.prefixes then
    S.prefixes = {}
    local found = meta().lp and call('HGETALL', S.D .. 'lp') or {}
    for n = 1, #found, 2 do S.prefixes[found[n]] = tonumber(found[n + 1]) end
  end
  local longest, limit = -1, nil
  for prefix, of in pairs(S.prefixes) do
    if #prefix > longest and name:sub(1, #prefix) == prefix then longest, limit = #prefix, of end
  end
  return limit
end

local function target_of(name)
  local target = S.targets[name]
  if target then return target end
  local found = call('HMGET', S.D .. 't:' .. name, 'l', 'a', 'u', 'w', 'o', 'v', 'h')
  local own = tonumber(found[1])
  target = {
    name = name, own = own, limit = limit_of(name, own), active = tonumber(found[2]) or 0, till = tonumber(found[3]),
    reason = found[4], tried = found[5] or nil, version = found[6] or nil, held = found[7] == '1',
    known = found[1] or found[2] or found[3],
  }
  target.was_open = is_open(target)
  S.targets[name] = target
  return target
end

-- What a group's tracks are below, in the number that holds them and its ready entries.
local GROUP_TRACKS = 4096

-- Ready entries of a group and the tracks that they may be in, from the text in `gr`.
local function ready_of(text)
  local number = tonumber(text) or 0
  local tracks = number % GROUP_TRACKS
  return (number - tracks) / GROUP_TRACKS, tracks
end

-- The lanes of one target in one queue.
local function group_of(queue, target)
  local of_queue = S.groups_of[queue]
  if not of_queue then of_queue = {}; S.groups_of[queue] = of_queue end
  local group = of_queue[target]
  if group then return group end
  local key = queue .. NUL .. target
  local ready, tracks = ready_of(call('HGET', S.D .. 'gr:' .. queue, target))
  group = {
    queue = queue, target = target, key = key, added = {}, ready = ready, tracks = tracks, was_ready = ready,
    was_tracks = tracks,
  }
  of_queue[target], S.groups[key] = group, group
  return group
end

local function weight_of(tenant)
  local weight = S.weights[tenant]
  if not weight then
    weight = meta().we and tonumber(call('HGET', S.D .. 'we', tenant)) or 1
    S.weights[tenant] = weight
  end
  return weight
end

-- The version of what nobody has set.
local UNSET = '-1'

-- What is set for a tenant: version, whether it is paused, until, reason; until when and why a budget keeps it asleep; whether
-- it sleeps. Or false: nearly everyone has nothing set.
local function tenant_of(name)
  if S.tenants == nil then S.tenants = call('EXISTS', S.D .. 'tz') == 1 and {} or false end
  if not S.tenants then return false end
  local tenant = S.tenants[name]
  if tenant == nil then
    local text = call('HGET', S.D .. 'tz', name)
    tenant = false
    if text then
      local version, paused, till, parked, why, reason =
        text:match('^([^%z]*)%z([^%z]*)%z([^%z]*)%z([^%z]*)%z([^%z]*)%z(.*)$')
      tenant = { version = version, paused = paused == '1', till = till, parked = tonumber(parked), why = why, reason = reason }
      tenant.asleep = tenant.paused or tenant.parked ~= nil
    end
    S.tenants[name] = tenant
  end
  return tenant
end

local function is_asleep(name)
  local tenant = tenant_of(name)
  return tenant and tenant.asleep
end

-- Keeps count of the ready entries of a tenant that sleeps.
local function count_asleep(lane, by)
  local key = S.D .. 'gz:' .. lane.queue
  if call('HINCRBY', key, lane.target, by) == 0 then call('HDEL', key, lane.target) end
end

local function new_lane(number, queue, tenant, target)
  return {
    number = number, queue = queue, tenant = tenant, target = target, at = 0, refs = 0, ready = 0, tracks = 0,
    count = {}, mask = {}, was = {}, bands = {},
  }
end

local function decode_lane(number, text)
  local at, refs, tracks, from = struct.unpack(LANE, text)
  local used, count, mask, was, ready = tracks_in(tracks), nil, nil, nil, 0
  if #used == 1 then
    -- Nearly every lane. Tables that are made with what they hold need not grow.
    local track, priorities = used[1], nil
    ready, priorities, from = struct.unpack(LANE_TRACK, text, from)
    count, mask, was = { [track] = ready }, { [track] = priorities }, { [track] = ready }
  else
    count, mask, was = {}, {}, {}
    for n = 1, #used do
      local track, entries = used[n], nil
      entries, mask[track], from = struct.unpack(LANE_TRACK, text, from)
      count[track], was[track], ready = entries, entries, ready + entries
    end
  end
  local queue, tenant, target = text:match('^([^%z]*)%z([^%z]*)%z(.*)$', from)
  return {
    number = number, queue = queue, tenant = tenant, target = target, at = at, refs = refs, ready = ready,
    tracks = tracks, count = count, mask = mask, was = was, bands = {},
  }
end

-- Reads these lanes at once; `lane_of` finds them then.
local function prefetch_lanes(numbers)
  local missing, asked = {}, {}
  for _, number in ipairs(numbers) do
    if not S.lanes[number] and not asked[number] then
      asked[number] = true
      missing[#missing + 1] = number
    end
  end
  for from = 1, #missing, UNPACK_MAX do
    local to = math.min(from + UNPACK_MAX - 1, #missing)
    local texts = call('HMGET', S.D .. 'n', unpack(missing, from, to))
    for n = from, to do
      if texts[n - from + 1] then S.lanes[missing[n]] = decode_lane(missing[n], texts[n - from + 1]) end
    end
  end
end

local function lane_of(number)
  if not S.lanes[number] then prefetch_lanes({ number }) end
  return S.lanes[number]
end

-- The lanes of these jobs, read at once.
local function prefetch_lanes_of(ids)
  local numbers = {}
  for _, id in ipairs(ids) do
    local job = S.jobs[id]
    if job then numbers[#numbers + 1] = job.lane end
  end
  prefetch_lanes(numbers)
end

-- The lane of these three, made if it is new. The caller adds a reference.
local function lane_named(queue, tenant, target)
  local name = queue .. NUL .. tenant .. NUL .. target
  local number = S.lane_numbers[name]
  if number == nil then number = tonumber(call('HGET', S.D .. 'ln', name)) end
  if not number then
    number = call('HINCRBY', S.D .. 'meta', 'lanes', 1)
    call('HSET', S.D .. 'ln', name, number)
    S.lanes[number] = new_lane(number, queue, tenant, target)
  end
  S.lane_numbers[name] = number
  return lane_of(number)
end

-- The target and, behind a NUL, the concurrency key: what the third name of a lane in an argument holds.
local function target_and_key(text)
  local at = string.find(text, NUL, 1, true)
  if at then return text:sub(1, at - 1), text:sub(at + 1) end
  return text
end

-- Reads the lanes that arguments name, three each from `first` on, at once.
local function prefetch_named(args, first)
  local names, numbers = {}, {}
  for n = first, #args, 3 do
    names[#names + 1] = args[n] .. NUL .. args[n + 1] .. NUL .. target_and_key(args[n + 2])
  end
  for from = 1, #names, UNPACK_MAX do
    local to = math.min(from + UNPACK_MAX - 1, #names)
    local found = call('HMGET', S.D .. 'ln', unpack(names, from, to))
    for n = from, to do
      local number = tonumber(found[n - from + 1])
      S.lane_numbers[names[n]] = number or false
      numbers[#numbers + 1] = number
    end
  end
  prefetch_lanes(numbers)
end

local function band(lane, track, priority)
  local number = track * PRIORITIES + priority
  local key = lane.bands[number]
  if not key then
    key = S.D .. 'b:' .. lane.number .. ':' .. track .. ':' .. priority
    lane.bands[number] = key
  end
  return key
end

-- The place one turn behind `turn`.
local function behind(turn, weight)
  return turn + math.floor(TURN / weight)
end

-- The place of a lane that joins the queue or was served: one turn behind the present one and, for the usual weight,
-- after everyone who stands there already. Without that a lane could be served twice while one of its place waits.
local function place_in(queue, weight)
  local at = behind(queue.turn, weight)
  if weight == 1 then
    at = math.max(at, queue.last + 1)
    queue.last = at
  end
  return at
end

local function touch(lane)
  lane.dirty = true
  S.touched[group_of(lane.queue, lane.target).key] = true
  S.served[lane.queue] = true
end

-- A ready entry joins its lane.
local function add(lane, id, track, priority, run_at)
  local queue, group = queue_of(lane.queue), group_of(lane.queue, lane.target)
  if queue.ready == 0 and queue.turn > TURN_MAX then queue.turn, queue.last = 0, 0 end
  if lane.ready == 0 then
    lane.at = place_in(queue, weight_of(lane.tenant))
    lane.moved = true
  end
  lane.ready = lane.ready + 1
  lane.count[track] = (lane.count[track] or 0) + 1
  lane.mask[track] = bit.bor(lane.mask[track] or 0, bit.lshift(1, priority))
  lane.tracks = with_track(lane.tracks, track)
  append(band(lane, track, priority), id, run_at)
  if is_asleep(lane.tenant) then count_asleep(lane, 1) end
  queue.ready = queue.ready + 1
  group.ready = group.ready + 1
  group.added[track] = true
  group.tracks = with_track(group.tracks, track)
  touch(lane)
end

-- A ready entry leaves its lane without having had its turn.
local function cut(lane, job)
  local track = job.track
  local queue, group = queue_of(lane.queue), group_of(lane.queue, lane.target)
  lane.ready = lane.ready - 1
  lane.count[track] = lane.count[track] - 1
  put(band(lane, track, job.priority), job.id, false)
  if is_asleep(lane.tenant) then count_asleep(lane, -1) end
  queue.ready = queue.ready - 1
  group.ready = group.ready - 1
  touch(lane)
end

-- Brings the lanes of a tenant to sleep, or wakes them. Looks at the name of each lane: a thing of operators.
local function set_asleep(tenant, asleep)
  local cursor, numbers, seen = '0', {}, {}
  repeat
    local found = call('HSCAN', S.D .. 'ln', cursor, 'MATCH', '*' .. NUL .. tenant .. NUL .. '*', 'COUNT', UNPACK_MAX)
    cursor = found[1]
    for n = 2, #found[2], 2 do
      local number = tonumber(found[2][n])
      if not seen[number] then numbers[#numbers + 1] = number end
      seen[number] = true
    end
  until cursor == '0'
  prefetch_lanes(numbers)
  for _, number in ipairs(numbers) do
    local lane = lane_of(number)
    if lane and lane.ready > 0 then
      count_asleep(lane, asleep and lane.ready or -lane.ready)
      if not asleep then
        local group = group_of(lane.queue, lane.target)
        -- Behind the others, as if it had just come: who slept has not saved turns up.
        lane.at = place_in(queue_of(lane.queue), weight_of(tenant))
        lane.moved = true
        for _, track in ipairs(tracks_in(lane.tracks)) do
          group.added[track] = true
          group.tracks = with_track(group.tracks, track)
        end
      end
      touch(lane)
    end
  end
end

-- Keeps a write: what is set for a tenant. Brings its lanes to sleep or wakes them where that changes.
local function set_tenant(name, tenant)
  local was = is_asleep(name) or false
  tenant.asleep = tenant.paused or tenant.parked ~= nil
  S.tenants = S.tenants or {}
  if tenant.version == UNSET and not tenant.parked then
    call('HDEL', S.D .. 'tz', name)
    S.tenants[name] = false
  else
    call('HSET', S.D .. 'tz', name, table.concat({ tenant.version, tenant.paused and '1' or '0', tenant.till,
      tenant.parked and number_text(tenant.parked) or '', tenant.why, tenant.reason }, NUL))
    S.tenants[name] = tenant
  end
  if tenant.asleep ~= was then set_asleep(name, tenant.asleep) end
end

-- A copy of what is set, to be changed.
local function tenant_to_change(name)
  local known = tenant_of(name)
  if not known then return { version = UNSET, paused = false, till = '', why = '', reason = '' } end
  local copy = {}
  for part, value in pairs(known) do copy[part] = value end
  return copy
end

-- A job of the lane has ended for good: its target works, as far as one job can tell.
local function note_end(lane)
  local target = target_of(lane.target)
  if target.tried and not sleeps(target) then
    target.tried, target.dirty = nil, true
    call('HDEL', S.D .. 't:' .. target.name, 'o')
  end
end

-- A claim of this lane is held that was taken from another generation: limits count it, turns do not.
local function occupy(lane)
  local queue, target = queue_of(lane.queue), target_of(lane.target)
  queue.active = queue.active + 1
  target.active = target.active + 1
  target.dirty = true
  S.served[lane.queue] = true
end

-- So many claims of this lane ended.
local function release(lane, claims)
  local queue, target = queue_of(lane.queue), target_of(lane.target)
  queue.active = queue.active - claims
  target.active = target.active - claims
  target.dirty = true
  S.served[lane.queue] = true
end

-- Adds what is to be written of a lane to `add`, or to `cut` when nothing refers to it any more.
local function settle_lane(lane, add, cut)
  local line = ':' .. lane.queue .. NUL .. lane.target
  local used, counts, tracks = 0, '', tracks_in(lane.tracks)
  local asleep = is_asleep(lane.tenant)
  for n = 1, #tracks do
    local track = tracks[n]
    local count, was = lane.count[track], lane.was[track] or 0
    if count > 0 then
      if asleep then
        put(S.D .. 'L' .. track .. line, lane.number, false)
      elseif lane.moved or was == 0 then
        put(S.D .. 'L' .. track .. line, lane.number, lane.at)
      end
      used = with_track(used, track)
      counts = counts .. struct.pack(LANE_TRACK, count, lane.mask[track])
    else
      lane.mask[track] = 0
      if was > 0 then put(S.D .. 'L' .. track .. line, lane.number, false) end
    end
    lane.was[track] = count
  end
  lane.tracks = used
  lane.dirty, lane.moved = false, false
  local name = lane.queue .. NUL .. lane.tenant .. NUL .. lane.target
  if lane.refs > 0 then
    add[#add + 1] = lane.number
    add[#add + 1] = struct.pack(LANE, lane.at, lane.refs, used) .. counts .. name
  else
    cut[#cut + 1] = lane.number
    call('HDEL', S.D .. 'ln', name)
    S.lanes[lane.number], S.lane_numbers[name] = nil, nil
  end
end

local function settle_lanes()
  local add, cut = {}, {}
  for _, lane in pairs(S.lanes) do
    if lane.dirty then settle_lane(lane, add, cut) end
  end
  send('HDEL', S.D .. 'n', cut)
  send('HSET', S.D .. 'n', add)
end

local function settle_target(target)
  local open = is_open(target)
  if open ~= target.was_open then
    target.was_open = open
    for _, queue in ipairs(call('SMEMBERS', S.D .. 'tq:' .. target.name)) do
      S.touched[group_of(queue, target.name).key] = true
      S.served[queue] = true
    end
  end
  if not target.dirty then return end
  target.dirty = false
  local key = S.D .. 't:' .. target.name
  if target.active > 0 or target.own or target.till or target.tried or target.version then
    call('HSET', key, 'a', target.active)
    if not target.known then
      call('SADD', S.D .. 'ts', target.name)
      target.known = true
    end
  else
    call('DEL', key)
    call('SREM', S.D .. 'ts', target.name)
    S.targets[target.name] = nil
  end
end

local function settle_group(group)
  local queue, open = queue_of(group.queue), is_open(target_of(group.target))
  local used = 0
  for _, track in ipairs(tracks_in(group.tracks)) do
    local at
    if open and group.ready > 0 then at = select(2, first_of(S.D .. 'L' .. track .. ':' .. group.key)) end
    -- Of a target that is closed nobody looks which tracks are empty now.
    if at or not open and group.ready > 0 then used = with_track(used, track) end
    local opened = S.D .. 'G' .. track .. ':' .. group.queue
    if at then
      queue.groups = with_track(queue.groups, track)
      local new = call('ZADD', opened, at, group.target) == 1
      if new or group.added[track] then queue.stir[track] = true end
      queue.opened[track] = true
    else
      call('ZREM', opened, group.target)
    end
  end
  group.added, group.tracks = {}, used
  if group.ready ~= group.was_ready or used ~= group.was_tracks then
    local counts, queues = S.D .. 'gr:' .. group.queue, S.D .. 'tq:' .. group.target
    if group.ready > 0 then
      call('HSET', counts, group.target, number_text(group.ready * GROUP_TRACKS + used))
      if group.was_ready <= 0 then call('SADD', queues, group.queue) end
    else
      call('HDEL', counts, group.target)
      call('SREM', queues, group.queue)
    end
    group.was_ready, group.was_tracks = group.ready, used
  end
end

-- A queue stands in this track for the first time, as far as the queue knows.
local function note_track(track)
  local known = meta()
  if has_track(known.tracks, track) then return end
  known.tracks = with_track(known.tracks, track)
  call('HSET', S.D .. 'meta', 'tracks', known.tracks)
end

local function settle_queue(queue)
  local may, was, placed = admits(queue), queue.listed, queue.listed ~= 0
  local listed, groups = 0, 0
  for _, track in ipairs(tracks_in(bit.bor(queue.groups, was))) do
    local open = may and (queue.opened[track] or call('EXISTS', S.D .. 'G' .. track .. ':' .. queue.name) == 1)
    if open or not may then groups = with_track(groups, track) end
    if open then
      if not has_track(was, track) then
        if not placed then queue.at, placed = behind(meta().turn, 1), true end
        note_track(track)
        queue.stir[track] = true
      end
      call('ZADD', S.D .. 'O' .. track, queue.at, queue.name)
      if queue.stir[track] then S.stirred[queue.name] = true end
      listed = with_track(listed, track)
    elseif has_track(was, track) then
      call('ZREM', S.D .. 'O' .. track, queue.name)
    end
  end
  queue.stir, queue.opened, queue.listed, queue.groups = {}, {}, listed, groups
  local key = S.D .. 'q:' .. queue.name
  if queue.active > 0 or queue.later > 0 or queue.ready > 0 or queue.version then
    call('HSET', key, 'a', queue.active, 'd', queue.later, 'r', queue.ready, 't', queue.turn, 'at', queue.at,
      'o', listed, 'g', groups, 'last', queue.last)
    if not queue.known then
      call('SADD', S.D .. 'qs', queue.name)
      queue.known = true
    end
  else
    call('DEL', key)
    call('SREM', S.D .. 'qs', queue.name)
    S.queues[queue.name] = nil
  end
end

-- Sends every kept write and looks again at whatever may have opened or closed by them.
settle = function()
  S.settled = S.settled + 1
  if S.unfit then
    write_jobs()
    keys.settle()
  end
  settle_lanes()
  write_jobs()
  write_kept()
  for _, target in pairs(S.targets) do
    if target.dirty or is_open(target) ~= target.was_open then settle_target(target) end
  end
  for key in pairs(S.touched) do settle_group(S.groups[key]) end
  S.touched = {}
  for name in pairs(S.served) do settle_queue(queue_of(name)) end
  S.served = {}
end

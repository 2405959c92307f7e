-- Purpose: takes the entries whose turn it is. Looks at as many queues, targets and lanes as it may take entries, at
--   the first of each, and at nothing that is blocked; the size of the backlog does not matter.
-- Invariant: to be called on a settled state, and leaves one.

-- What others use of it; the rest is a block of its own, since Lua allows 200 local names side by side.
local claim, may_claim_isolated
do
-- A binary heap of {at, value, number}; the smaller `at` comes first, and of the same `at` who came first.
local function is_before(a, b)
  return a[1] < b[1] or a[1] == b[1] and a[3] < b[3]
end

local function next_number()
  S.sequence = S.sequence + 1
  return S.sequence
end

local function heap_push(heap, at, value)
  local n = #heap + 1
  heap[n] = { at, value, next_number() }
  while n > 1 do
    local parent = math.floor(n / 2)
    if is_before(heap[parent], heap[n]) then return end
    heap[parent], heap[n] = heap[n], heap[parent]
    n = parent
  end
end

-- Without calls: it runs three times for each job that is taken.
local function heap_sink(heap)
  local n, size = 1, #heap
  local item = heap[1]
  local at, number = item[1], item[3]
  while true do
    local child = n * 2
    if child > size then break end
    local least = heap[child]
    local other = heap[child + 1]
    if other and (other[1] < least[1] or other[1] == least[1] and other[3] < least[3]) then
      child, least = child + 1, other
    end
    if at < least[1] or at == least[1] and number < least[3] then break end
    heap[n] = least
    n = child
  end
  heap[n] = item
end

local function heap_pop(heap)
  local size = #heap
  heap[1] = heap[size]
  heap[size] = nil
  if size > 1 then heap_sink(heap) end
end

local function heap_move(heap, at)
  heap[1][1], heap[1][3] = at, next_number()
  heap_sink(heap)
end

-- The first members of the sorted sets of these tracks as a heap of what `value` makes of them; a member of several
-- comes once, at the place that is soonest.
local function heap_of(prefix, suffix, tracks, count, value)
  local names, places = {}, {}
  for _, track in ipairs(tracks_in(tracks)) do
    local found = call('ZRANGE', prefix .. track .. suffix, 0, count - 1, 'WITHSCORES')
    for n = 1, #found, 2 do
      local name, at = found[n], tonumber(found[n + 1])
      if not places[name] then names[#names + 1] = name end
      places[name] = math.min(places[name] or at, at)
    end
  end
  local heap = {}
  for _, name in ipairs(names) do heap_push(heap, places[name], value(name)) end
  return heap
end

local function lanes_of(queue, target, tracks, count)
  local numbers = {}
  local heap = heap_of(S.D .. 'L', ':' .. queue .. NUL .. target, tracks, count, function(number)
    numbers[#numbers + 1] = tonumber(number)
    return numbers[#numbers]
  end)
  prefetch_lanes(numbers)
  for _, item in ipairs(heap) do item[2] = lane_of(item[2]) end
  return heap
end

-- The bands of a lane that have entries, with the first `ahead` of each. Due times are asked for only where they
-- decide between bands.
local function open_line(lane, tracks, ahead)
  local line = {}
  local used = tracks_in(bit.band(lane.tracks, tracks))
  for n = 1, #used do
    local track = used[n]
    for priority = 0, lane.count[track] > 0 and PRIORITY_MAX or -1 do
      if bit.band(lane.mask[track], bit.lshift(1, priority)) ~= 0 then
        line[#line + 1] = {
          key = band(lane, track, priority), track = track, priority = priority, ids = {}, times = false, next = 1,
          asked = 0, taken = 0, ended = false,
        }
      end
    end
  end
  line.ahead, line.many = ahead, #line > 1
  lane.line = line
  S.lines[#S.lines + 1] = line
  return line
end

-- The next entry of a band and its due time, if that was asked for; nil at its end.
local function band_head(line, stock, lane)
  local id = stock.ids[stock.next]
  if id or stock.ended then return id, stock.times and tonumber(stock.times[stock.next]) end
  local first, last = stock.asked, stock.asked + line.ahead - 1
  if line.many then
    local found = call('ZRANGE', stock.key, first, last, 'WITHSCORES')
    stock.ids, stock.times = {}, {}
    for n = 1, #found, 2 do stock.ids[(n + 1) / 2], stock.times[(n + 1) / 2] = found[n], found[n + 1] end
  else
    stock.ids = call('ZRANGE', stock.key, first, last)
  end
  stock.asked, stock.next, stock.ended = last + 1, 1, #stock.ids < line.ahead
  if #stock.ids == 0 and stock.taken == 0 then
    local mask = lane.mask[stock.track]
    lane.mask[stock.track] = bit.band(mask, bit.bnot(bit.lshift(1, stock.priority)))
  end
  return stock.ids[1], stock.times and tonumber(stock.times[1])
end

-- The entry of the lane whose turn is next, of the tracks that may be claimed, and its band.
local function lane_head(lane, tracks, ahead)
  local line = lane.line or open_line(lane, tracks, ahead)
  local best, band_of_best, best_rank
  for n = 1, #line do
    local stock = line[n]
    if has_track(tracks, stock.track) then
      local id, run_at = band_head(line, stock, lane)
      if id then
        local rank = line.many and run_at - stock.priority * AGEING_MS or 0
        if not best or rank < best_rank or rank == best_rank and bytes_before(id, best) then
          best, band_of_best, best_rank = id, stock, rank
        end
      end
    end
  end
  return best, band_of_best
end

-- Takes the next entry of the queue: its job, lane and track; nil when nothing of it can be claimed any more. Of its targets, those that the
-- claims of this round closed may come first: `slots` of them leave `left` others.
local function take(queue, tracks, left, slots)
  if not admits(queue) then return nil end
  local groups = queue.heap
  if not groups then
    groups = heap_of(S.D .. 'G', ':' .. queue.name, bit.band(tracks, queue.groups), slots, function(name)
      return { target = name }
    end)
    queue.heap = groups
  end
  while #groups > 0 do
    local group = groups[1][2]
    local target = target_of(group.target)
    local lanes = group.lanes
    if not lanes then
      group.kept = group_of(queue.name, group.target)
      lanes = lanes_of(queue.name, group.target, bit.band(tracks, group.kept.tracks), left)
      group.lanes, group.ahead = lanes, math.ceil(left / math.max(#lanes, 1))
    end
    local lane = is_open(target) and #lanes > 0 and lanes[1][2]
    -- A group that was listed for an isolated job, which may no longer be claimed, stands too far in front.
    local misplaced = lane and lanes[1][1] ~= groups[1][1]
    local id, stock
    if lane and not misplaced then id, stock = lane_head(lane, tracks, group.ahead) end
    if id then
      queue.turn = math.max(queue.turn, lane.at)
      lane.at = place_in(queue, weight_of(lane.tenant))
      lane.moved = true
      lane.ready = lane.ready - 1
      lane.count[stock.track] = lane.count[stock.track] - 1
      stock.next, stock.taken = stock.next + 1, stock.taken + 1
      queue.ready, queue.active = queue.ready - 1, queue.active + 1
      target.active, target.dirty = target.active + 1, true
      group.kept.ready = group.kept.ready - 1
      touch(lane)
      heap_move(lanes, lane.at)
      heap_move(groups, lanes[1][1])
      return id, lane, stock.track
    end
    if lane and not misplaced then heap_pop(lanes) end
    -- The next lane of this target may have to wait for one of another target.
    if lane and #lanes > 0 then heap_move(groups, lanes[1][1]) else heap_pop(groups) end
  end
end

-- Takes entries of the one target of the one queue that are left, as long as nothing but turns decides: lanes of the
-- usual weight, each with one band. It does what `take` would do with each, in a fraction of its time; where it stops,
-- `take` goes on. Adds to `ids` and `lanes`, and returns how many it took.
local function take_run(queue, tracks, slots, ids, lanes_of_ids)
  local group = queue.heap[1][2]
  local ring, target = group.lanes, target_of(group.target)
  if not ring or #ring == 0 or group.ran_out or not is_open(target) or not admits(queue) or ring[1][1] ~= queue.heap[1][1] then return 0 end
  local most = slots - #ids
  if queue.limit then most = math.min(most, queue.limit - queue.active) end
  if target.limit then most = math.min(most, target.limit - target.active) end
  for n = 1, #ring do
    local lane = ring[n][2]
    local line = lane.line or open_line(lane, tracks, group.ahead)
    if #line ~= 1 or is_isolated(line[1].track) or not has_track(tracks, line[1].track)
      or weight_of(lane.tenant) ~= 1 then return 0 end
    lane.run = 0
  end
  -- A lane of the usual weight that was served comes after all others, so they follow each other in a ring.
  table.sort(ring, is_before)
  local turn, last, taken, p, size = queue.turn, queue.last, 0, 1, #ring
  while taken < most do
    local item = ring[p]
    local lane = item[2]
    local stock = lane.line[1]
    local id = stock.ids[stock.next] or band_head(lane.line, stock, lane)
    if not id then break end
    local at = lane.at
    if at > turn then turn = at end
    at = turn + TURN
    if at <= last then at = last + 1 end
    last, lane.at, item[1] = at, at, at
    stock.next, stock.taken, lane.run = stock.next + 1, stock.taken + 1, lane.run + 1
    taken = taken + 1
    ids[#ids + 1], lanes_of_ids[#lanes_of_ids + 1] = id, lane
    p = p < size and p + 1 or 1
  end
  -- Where lanes end one after the other, a run for each would look at the whole ring each time.
  group.ran_out = taken < size and taken < most
  if taken == 0 then return 0 end
  local turned = {}
  for n = 0, size - 1 do
    local item = ring[(p - 1 + n) % size + 1]
    turned[n + 1], item[3] = item, next_number()
    local lane = item[2]
    if lane.run > 0 then
      lane.moved = true
      lane.ready = lane.ready - lane.run
      local track = lane.line[1].track
      lane.count[track] = lane.count[track] - lane.run
      touch(lane)
    end
  end
  queue.turn, queue.last, group.lanes = turn, last, turned
  queue.ready, queue.active = queue.ready - taken, queue.active + taken
  target.active, target.dirty = target.active + taken, true
  group.kept.ready = group.kept.ready - taken
  queue.heap[1][1], queue.heap[1][3] = turned[1][1], next_number()
  return taken
end

-- The open queues among those named (none: all), as a heap of places.
local function open_queues(names, tracks, slots)
  if #names == 0 then
    return heap_of(S.D .. 'O', '', bit.band(tracks, meta().tracks), slots, function(name) return queue_of(name) end)
  end
  local heap, seen = {}, {}
  for _, name in ipairs(names) do
    local queue = not seen[name] and queue_of(name)
    seen[name] = true
    if queue and bit.band(queue.listed, tracks) ~= 0 then heap_push(heap, queue.at, queue) end
  end
  return heap
end

-- Takes up to `slots` entries of these queues and tracks: their jobs and lanes.
local function take_all(names, tracks, slots)
  local ids, lanes = {}, {}
  local queues = open_queues(names, tracks, slots)
  local turn = meta().turn
  S.lines = {}
  while #ids < slots and #queues > 0 do
    local queue = queues[1][2]
    local id, lane, track = take(queue, tracks, slots - #ids, slots)
    if id then
      ids[#ids + 1], lanes[#lanes + 1] = id, lane
      if is_isolated(track) then tracks = bit.band(tracks, PLAIN_TRACKS) end
      turn = math.max(turn, queue.at)
      if #queues == 1 and #queue.heap == 1 then
        turn = turn + take_run(queue, tracks, slots, ids, lanes) * TURN
      end
      queue.at = behind(turn, 1)
      heap_move(queues, queue.at)
    else
      heap_pop(queues)
    end
  end
  if turn ~= meta().turn then
    meta().turn = turn
    call('HSET', S.D .. 'meta', 'turn', turn)
  end
  for _, line in ipairs(S.lines) do
    for _, stock in ipairs(line) do
      if stock.taken > 0 then call('ZREMRANGEBYRANK', stock.key, 0, stock.taken - 1) end
    end
  end
  for _, lane in pairs(S.lanes) do lane.line = nil end
  for _, queue in pairs(S.queues) do queue.heap = nil end
  return ids, lanes
end

-- Makes these entries the session's and adds them to `claims`, a list of job, record and number of the queue each, and
-- their queues to `queues`.
local function hold(session, ids, lanes, seed, claims, queues)
  local records, leases, isolated, keyed = {}, {}, {}, nil
  local ends = number_text(S.now + LEASE_MS)
  local holder = session .. UNMARKED
  for n, text in ipairs(fetch(ids)) do
    local id, queue = ids[n], lanes[n].queue
    if text and #text == WAITING_BYTES then
      local at, of = #claims, #records
      local record = text .. seed .. struct.pack('>H', at / 3) .. holder
      if not queues[queue] then
        queues[#queues + 1] = queue
        queues[queue] = struct.pack('>H', #queues - 1)
      end
      claims[at + 1], claims[at + 2], claims[at + 3] = id, record, queues[queue]
      records[of + 1], records[of + 2] = id, record
      leases[of + 1], leases[of + 2] = ends, id
      local rank = text:byte(1)
      if bit.band(rank, ISOLATED) ~= 0 then isolated[#isolated + 1] = id end
      if rank >= KEYED then
        keyed = keyed or {}
        keyed[#keyed + 1] = id
      end
      S.jobs[id] = nil
    else
      -- A band without a record cannot be: the next rebuild mends it, and nobody runs it meanwhile.
      release(lanes[n], 1)
    end
  end
  send('HSET', S.D .. 'j', records)
  send('ZADD', S.D .. 'l:' .. session, leases)
  send('SADD', S.D .. 'is:' .. session, isolated)
  if keyed then keys.hold(keyed) end
end

-- Where no queue ever stood in such a track, there is nothing to ask for.
function may_claim_isolated(session)
  return bit.band(meta().tracks, ALL_TRACKS - PLAIN_TRACKS) == 0 or call('SCARD', S.D .. 'is:' .. session) == 0
end

-- Whether as many jobs of a target of this call are held as may.
local function any_full()
  for _, target in pairs(S.targets) do
    if target.limit and target.active >= target.limit then return true end
  end
  return false
end

-- Claims up to `slots` jobs of these queues and tracks for a session. `seed` is new with every call, so that no two claims share a nonce.
-- Returns the claims as one text of (id, record, number of the queue), the names of the queues, and how many there are.
function claim(session, names, tracks, slots, seed)
  local claims, queues = {}, {}
  local ids, lanes
  -- Again after a round that took something and closed a target: it is closed in every queue that was looked at, and those
  -- behind them were not.
  repeat
    local may = may_claim_isolated(session) and tracks or bit.band(tracks, PLAIN_TRACKS)
    ids, lanes = take_all(names, may, slots - #claims / 3)
    hold(session, ids, lanes, seed, claims, queues)
    settle()
  until #ids == 0 or #claims / 3 >= slots or not any_full()
  return table.concat(claims), queues, #claims / 3
end
end

-- Purpose: takes the entries whose turn it is. Looks at as many queues, targets and lanes as it may take entries, at
--   the first of each, and at nothing that is blocked; the size of the backlog does not matter.
-- Invariant: to be called on a settled state, and leaves one.

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

local function heap_sink(heap)
  local n, size = 1, #heap
  while true do
    local least = n
    for child = n * 2, n * 2 + 1 do
      if child <= size and is_before(heap[child], heap[least]) then least = child end
    end
    if least == n then return end
    heap[least], heap[n] = heap[n], heap[least]
    n = least
  end
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

-- The first members of two sorted sets as a heap of what `value` makes of them; a member of both comes once, at the
-- place that is sooner.
local function heap_of(prefix, suffix, tracks, count, value)
  local names, places = {}, {}
  for track = 0, tracks do
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

-- The next entry of a band and its due time; nil at its end. Takes `ahead` entries out at once: those that are not
-- claimed are given back at the end.
local function band_head(line, lane, track, priority, ahead)
  local key = track * 16 + priority
  local stock = line[key]
  if not stock then
    stock = { next = 1, ids = {}, key = band(lane, track, priority) }
    line[key] = stock
  end
  if stock.next > #stock.ids and not stock.ended then
    stock.ids, stock.next = call('ZPOPMIN', stock.key, ahead), 1
    stock.ended = #stock.ids < ahead * 2
  end
  return stock.ids[stock.next], tonumber(stock.ids[stock.next + 1]), stock
end

-- The entry of the lane whose turn is next, of the tracks that may be claimed.
local function lane_head(lane, tracks, ahead)
  lane.line = lane.line or {}
  local best
  for track = 0, tracks do
    if lane.count[track] > 0 then
      for priority = 0, PRIORITY_MAX do
        if bit.band(lane.mask[track], bit.lshift(1, priority)) ~= 0 then
          local id, run_at, stock = band_head(lane.line, lane, track, priority, ahead)
          if id then
            local rank = run_at - priority * AGEING_MS
            if not best or rank < best.rank or rank == best.rank and bytes_before(id, best.id) then
              best = { id = id, run_at = run_at, rank = rank, track = track, stock = stock }
            end
          else
            lane.mask[track] = bit.band(lane.mask[track], bit.bnot(bit.lshift(1, priority)))
          end
        end
      end
    end
  end
  return best
end

-- Takes the next entry of the queue; nil when nothing of it can be claimed any more. Of its targets, those that the
-- claims of this round closed may come first: `slots` of them leave `left` others.
local function take(queue, tracks, left, slots)
  if not admits(queue) then return nil end
  local groups = queue.heap
  if not groups then
    groups = heap_of(S.D .. 'G', ':' .. queue.name, tracks, slots, function(name) return { target = name } end)
    queue.heap = groups
  end
  while #groups > 0 do
    local group = groups[1][2]
    local target = target_of(group.target)
    local lanes = group.lanes
    if not lanes then
      lanes = lanes_of(queue.name, group.target, tracks, left)
      group.lanes, group.ahead = lanes, math.ceil(left / math.max(#lanes, 1))
    end
    local lane = is_open(target) and #lanes > 0 and lanes[1][2]
    -- A group that was listed for a suspect, which may no longer be claimed, stands too far in front.
    local misplaced = lane and lanes[1][1] ~= groups[1][1]
    local head = lane and not misplaced and lane_head(lane, tracks, group.ahead)
    if head then
      queue.turn = math.max(queue.turn, lane.at)
      lane.at = place_in(queue, weight_of(lane.tenant))
      lane.moved = true
      lane.count[head.track] = lane.count[head.track] - 1
      head.stock.next = head.stock.next + 2
      queue.ready, queue.active = queue.ready - 1, queue.active + 1
      target.active, target.dirty = target.active + 1, true
      local kept = group_of(queue.name, group.target)
      kept.ready = kept.ready - 1
      touch(lane)
      heap_move(lanes, lane.at)
      heap_move(groups, lanes[1][1])
      return head, lane
    end
    if lane and not misplaced then heap_pop(lanes) end
    -- The next lane of this target may have to wait for one of another target.
    if lane and #lanes > 0 then heap_move(groups, lanes[1][1]) else heap_pop(groups) end
  end
end

-- The open queues among those named (none: all), as a heap of places.
local function open_queues(names, tracks, slots)
  if #names == 0 then
    return heap_of(S.D .. 'O', '', tracks, slots, function(name) return queue_of(name) end)
  end
  local heap, seen = {}, {}
  for _, name in ipairs(names) do
    local queue = not seen[name] and queue_of(name)
    seen[name] = true
    if queue and (queue.listed[0] or tracks == 1 and queue.listed[1]) then heap_push(heap, queue.at, queue) end
  end
  return heap
end

-- Takes up to `slots` entries of these queues.
local function take_all(names, slots, may_suspects)
  local taken = {}
  local tracks = may_suspects and 1 or 0
  local queues = open_queues(names, tracks, slots)
  local turn = tonumber(call('HGET', S.D .. 'meta', 'turn')) or 0
  local was = turn
  while #taken < slots and #queues > 0 do
    local queue = queues[1][2]
    local head, lane = take(queue, tracks, slots - #taken, slots)
    if head then
      head.lane = lane
      taken[#taken + 1] = head
      if head.track == 1 then tracks = 0 end
      turn = math.max(turn, queue.at)
      queue.at = behind(turn, 1)
      heap_move(queues, queue.at)
    else
      heap_pop(queues)
    end
  end
  if turn ~= was then call('HSET', S.D .. 'meta', 'turn', turn) end
  for _, lane in pairs(S.lanes) do
    for _, stock in pairs(lane.line or {}) do
      for n = stock.next, #stock.ids, 2 do put(stock.key, stock.ids[n], stock.ids[n + 1]) end
    end
    lane.line = nil
  end
  for _, queue in pairs(S.queues) do queue.heap = nil end
  return taken
end

-- Makes these entries the session's, adds them to `claims` and their queues to `queues`.
local function hold(session, taken, seed, claims, queues)
  local ids = {}
  for n, head in ipairs(taken) do ids[n] = head.id end
  prefetch(ids)
  for _, head in ipairs(taken) do
    local job, queue = job_of(head.id), head.lane.queue
    if job and not job.leased then
      local n = #claims + 1
      job.leased, job.session, job.nonce = true, session, seed .. struct.pack('>H', n)
      set_job(job.id, job)
      put(S.D .. 'l', job.id, S.now + LEASE_MS)
      mark(S.D .. 'sl:' .. session, job.id, true)
      if job.suspect then mark(S.D .. 'su:' .. session, job.id, true) end
      if not queues[queue] then
        queues[#queues + 1] = queue
        queues[queue] = #queues
      end
      claims[n] = struct.pack('>c16dc8dH', job.id, job.epoch, job.nonce, job.run_at, queues[queue] - 1)
    else
      -- A band without a record cannot be: the next rebuild mends it, and nobody runs it meanwhile.
      release(head.lane)
    end
  end
end

-- Claims up to `slots` jobs for a session. `seed` is new with every call, so that no two claims share a nonce.
-- Returns the claims as one text of (id, epoch, nonce, ready_at, number of the queue), the names of the queues, and how
-- many there are.
local function claim(session, names, slots, seed)
  local claims, queues = {}, {}
  -- Again after a round that took something: one claim can close its target in every queue that was looked at, and
  -- those behind them were not.
  repeat
    local may_suspects = call('SCARD', S.D .. 'su:' .. session) == 0
    local taken = take_all(names, slots - #claims, may_suspects)
    hold(session, taken, seed, claims, queues)
    settle()
  until #taken == 0 or #claims >= slots
  return table.concat(claims), queues, #claims
end

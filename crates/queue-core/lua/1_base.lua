-- Purpose: what every verb stands on: the state of one call, its keys, the clock, and writes that are kept until they
--   can be sent in bulk.
-- Keys: all begin with P (the partition, which is one hash tag) or D (P and the generation, so that a new generation
--   finds nothing of the old one, whatever was in it). The Rust side prepends the constants in capitals.
--     P gen      the generation                     P ss     sessions by the end of their life
--     P s:<sid>  one session                        P sd     dead sessions by the time of their death
--     P w        sessions that listen               P old    generations still to be swept
--     P all      channel: a new generation began
--     D j        job id -> its record               D d      entries due later, by due time
--     D l        leases by their end                D x      lost leases, in the order of ids
--     D m        pauses and parkings by their end   D meta   turn of the queues, number of the last lane
--     D ln       queue\0tenant\0target -> lane      D n      lane -> its record
--     D b:<lane>:<track>:<priority>  ready entries by due time
--     D qs, q:<queue>    queues                     D gr:<queue>    target -> ready entries
--     D ts, t:<target>   targets                    D tq:<target>   queues with ready entries of the target
--     D O<track>         open queues by turn        D G<track>:<queue>  open targets of a queue by turn
--     D L<track>:<queue>\0<target>  lanes with ready entries by turn
--     D lp       prefix of targets -> limit of those that have none of their own
--     D we       tenant -> weight                   D sl:<sid>, su:<sid>  leases of a session; suspects among them
-- Invariant: nothing is read from Redis that a kept write would change; `settle()` sends them.

-- One call's state. Set by `run`, never left over from another call.
local S
local call

local SUSPECT, LEASED, STARTED, LOST, COUNTS, CANCELLED = 1, 2, 4, 8, 16, 32
local NUL = '\0'
-- An entry in an argument: id, epoch, run_at, priority, suspect, number of its lane among the arguments.
local ENTRY = '>c16ddBBH'
local ENTRY_BYTES = 36
-- A claim that its session held before a flush: its entry, nonce, whether it started and when.
local HELD_BYTES = ENTRY_BYTES + 8 + 1 + 8
local LEASE = '>c16dc8'
local LEASE_BYTES = 32
local WAITING = '>BBI4dd'
local HOLDING = '>c16c8d'
local HELD = '>BBI4ddc16c8d'
-- A lane: its place, entries that refer to it, ready entries and priorities in use of both tracks; then its names.
local LANE = '>dI4I4I4HH'

-- Calls `command key ...` with any number of arguments, in pieces that Lua's stack holds.
local function send(command, key, args)
  for from = 1, #args, UNPACK_MAX do
    call(command, key, unpack(args, from, math.min(from + UNPACK_MAX - 1, #args)))
  end
end

-- Keeps a write: the score of a member of a sorted set, or false to take it out.
local function put(key, member, score)
  local of = S.sorted[key]
  if not of then of = {}; S.sorted[key] = of end
  of[member] = score
end

-- Keeps a write: whether a set has a member.
local function mark(key, member, present)
  local of = S.sets[key]
  if not of then of = {}; S.sets[key] = of end
  of[member] = present
end

local function write_kept()
  for key, of in pairs(S.sorted) do
    local add, cut = {}, {}
    for member, score in pairs(of) do
      if score then
        add[#add + 1] = score; add[#add + 1] = member
      else
        cut[#cut + 1] = member
      end
    end
    send('ZREM', key, cut)
    send('ZADD', key, add)
  end
  for key, of in pairs(S.sets) do
    local add, cut = {}, {}
    for member, present in pairs(of) do
      if present then add[#add + 1] = member else cut[#cut + 1] = member end
    end
    send('SREM', key, cut)
    send('SADD', key, add)
  end
  S.sorted, S.sets = {}, {}
end

-- A waiting job. It has room for what a claim adds: a table that grows is what a script spends most of its time on.
local function new_job(id, suspect, priority, lane, epoch, run_at)
  return {
    id = id, suspect = suspect, priority = priority, lane = lane, epoch = epoch, run_at = run_at, leased = false,
    session = false, nonce = false, started_at = 0, started = false, lost = false, counts = false, cancelled = false,
  }
end

local function decode(id, text)
  if not text then return false end
  local flags, priority, lane, epoch, run_at, at = struct.unpack(WAITING, text)
  local job = new_job(id, flags % 2 == SUSPECT, priority, lane, epoch, run_at)
  if flags >= LEASED then
    job.leased = true
    job.session, job.nonce, job.started_at = struct.unpack(HOLDING, text, at)
    if flags >= STARTED then
      job.started = bit.band(flags, STARTED) ~= 0
      job.lost = bit.band(flags, LOST) ~= 0
      job.counts = bit.band(flags, COUNTS) ~= 0
      job.cancelled = bit.band(flags, CANCELLED) ~= 0
    end
  end
  return job
end

local function encode(job)
  local flags = job.suspect and SUSPECT or 0
  if not job.leased then return struct.pack(WAITING, flags, job.priority, job.lane, job.epoch, job.run_at) end
  flags = flags + LEASED + (job.started and STARTED or 0) + (job.lost and LOST or 0) + (job.counts and COUNTS or 0)
    + (job.cancelled and CANCELLED or 0)
  return struct.pack(HELD, flags, job.priority, job.lane, job.epoch, job.run_at, job.session, job.nonce, job.started_at)
end

-- Reads the records of these jobs at once; `job` finds them then.
local function prefetch(ids)
  for from = 1, #ids, UNPACK_MAX do
    local to = math.min(from + UNPACK_MAX - 1, #ids)
    local texts = call('HMGET', S.D .. 'j', unpack(ids, from, to))
    for n = from, to do
      if S.jobs[ids[n]] == nil then S.jobs[ids[n]] = decode(ids[n], texts[n - from + 1]) end
    end
  end
end

-- The record of a job, or false.
local function job_of(id)
  local job = S.jobs[id]
  if job == nil then
    job = decode(id, call('HGET', S.D .. 'j', id))
    S.jobs[id] = job
  end
  return job
end

-- Keeps a write: the record of a job, or false to forget it.
local function set_job(id, job)
  S.jobs[id] = job
  S.changed[id] = true
end

local function write_jobs()
  local add, cut = {}, {}
  for id in pairs(S.changed) do
    local job = S.jobs[id]
    if job then
      add[#add + 1] = id; add[#add + 1] = encode(job)
    else
      cut[#cut + 1] = id
    end
  end
  send('HDEL', S.D .. 'j', cut)
  send('HSET', S.D .. 'j', add)
  S.changed = {}
end

-- The first member of a sorted set and its score.
local function first_of(key)
  local found = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return found[1], tonumber(found[2])
end

-- Compares as Redis does: Lua's `<` on text follows the server's locale.
local function bytes_before(a, b)
  for n = 1, math.min(#a, #b) do
    local x, y = a:byte(n), b:byte(n)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local function number_text(number) return string.format('%.0f', number) end

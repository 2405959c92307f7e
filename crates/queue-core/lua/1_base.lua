-- Purpose: what every verb stands on: the state of one call, its keys, the clock, and writes that are kept until they
--   can be sent in bulk.
-- Keys: all begin with P (the partition, which is one hash tag) or D (P and the generation, so that a new generation
--   finds nothing of the old one, whatever was in it). The Rust side prepends the constants in capitals.
--     P gen      the generation                     P ss     sessions by the end of their life
--     P s:<sid>  one session                        P sd     dead and former sessions by their end
--     P w        sessions that listen               P old    generations still to be swept
--     P all      channel: a new generation began    P ear:<sid>  channel: whose process listens to it is connected
--     D j        job id -> its record, 22 bytes while it waits and 55 while it is held
--     D d        entries due later, by due time     D st:<sid> lease -> when its handler began
--     D l:<sid>  leases of a session by their end,  D x      lost leases, in the order of ids
--                those that were lost at the last
--     D m        pauses and parkings by their end,  D meta   turn of the queues, tracks that they ever stood in, last
--                queues whose keys have yet to             lane, last key
--                hear of a limit
--     D ln       queue\0tenant\0target -> lane      D n      lane -> its record
--     D b:<lane>:<track>:<priority>  ready entries by due time
--     D qs       queues                             D gr:<queue>    target -> ready entries * 4096 + tracks that they may be in
--     D q:<queue>        v version, p paused, u until, w why, c limit; a active, d due later, r ready entries; t turn, at
--                its place, last its last lane's; o and g, tracks in which it and its targets are open; of its keys k
--                limit, b due entries that wait behind one, kr the first key that has yet to hear of a new limit
--     D ts, t:<target>   targets                    D tq:<target>   queues with ready entries of the target
--     D O<track>         open queues by turn        D G<track>:<queue>  open targets of a queue by turn
--     D L<track>:<queue>\0<target>  lanes with ready entries by turn
--     D lp       prefix of targets -> limit of those that have none of their own
--     D kj       job id -> number of its concurrency key, of jobs that have one
--     D kn       queue\0tenant\0key -> number      D ks     number of a key -> its record
--     D ka:<key>, kb:<key>  due entries of a key in their lanes, and those that wait for a place, by rank
--     D kq:<queue>       keys that more than one job has
--     D we       tenant -> weight                   D is:<sid>  isolated jobs among the leases of a session
--     D tz       tenant -> version, paused, until, parked until and why, reason of the pause (NUL between)
--     D gz:<queue>  target -> ready entries of tenants that sleep
--   A track is twice the kind, plus one for isolated jobs (tracks.rs); sets of tracks are numbers with one bit a track.
-- Invariant: nothing is read from Redis that a kept write would change; `settle()` sends them.

-- One call's state. Set by `run`, never left over from another call.
local S
local call

local NUL = '\0'
-- An entry in an argument: id, epoch, run_at, priority, track, suspicion, number of its lane among the arguments.
local ENTRY = '>c16ddBBBH'
local ENTRY_BYTES = 37
-- A claim that its session held before a flush: its entry, nonce, whether it started and when.
local HELD_BYTES = ENTRY_BYTES + 8 + 1 + 8
local LEASE = '>c16dc8'
local LEASE_BYTES = 32
-- A record: priority and track, number of the lane, suspicion, run_at, epoch; of a held job also nonce, session, flags
-- and, once it is lost, when its handler began. A claim only appends to what it found; epoch and nonce stand as they do
-- in a lease.
local WAITING = '>BI4Bdd'
local HOLDING = '>c8c16Bd'
local WAITING_BYTES = 22
-- Its first two, and where it has epoch and nonce, and session and flags.
local LANE_OF = '>BI4'
local CLAIM_FROM, CLAIM_TO, HOLDER_FROM, HOLDER_TO = 15, 30, 31, 47
-- A rank is kind * PRIORITIES + priority, below 64; then ISOLATED if the job runs apart, and KEYED if it has a concurrency
-- key. All of it has to fit into a byte.
local PRIORITIES = PRIORITY_MAX + 1
local ISOLATED = 64
local KEYED = 128
-- Those whose end is more than the end of a lease.
local SPECIAL = ISOLATED + KEYED
local STARTED, LOST, CANCELLED = 1, 2, 8
-- Of a lost job: who is to blame for the loss, as a flag and as it is told.
local SHARED, ALONE = 4, 16
local BLAMES_NOBODY, BLAMES_SHARED, BLAMES_ALONE = 0, 1, 2
-- The flags and the time of a claim that was just made.
local UNMARKED = '\0\0\0\0\0\0\0\0\0'
-- A lane: its place, entries that refer to it, tracks in use; ready entries and priorities in use of each of those;
-- then its names.
local LANE = '>dI4H'
local LANE_TRACK = '>I4H'

local settle
-- What 8_keys.lua defines: nothing else knows of keys, and what has none pays for none.
local keys = {}

-- The tracks of a set, in order.
local track_lists = {}
local function tracks_in(set)
  local list = track_lists[set]
  if not list then
    list = {}
    for track = 0, TRACKS - 1 do
      if bit.band(set, bit.lshift(1, track)) ~= 0 then list[#list + 1] = track end
    end
    track_lists[set] = list
  end
  return list
end

local BIT_OF = {}
for track = 0, TRACKS - 1 do BIT_OF[track] = 2 ^ track end

local function has_track(set, track) return bit.band(set, BIT_OF[track]) ~= 0 end

local function with_track(set, track) return bit.bor(set, BIT_OF[track]) end

local function is_isolated(track) return track % 2 == 1 end

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

-- Numbers as Redis writes them. Entries of one batch mostly have the same, and writing one is not cheap.
local last_number, last_text
local function number_text(number)
  if number ~= last_number then last_number, last_text = number, string.format('%.0f', number) end
  return last_text
end

-- Keeps a write: a new member of a sorted set, which nothing else in this call speaks of before it is written.
local function append(key, member, score)
  local of = S.added[key]
  if not of then of = {}; S.added[key] = of end
  local n = #of
  of[n + 1], of[n + 2] = number_text(score), member
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
  for key, of in pairs(S.added) do send('ZADD', key, of) end
  for key, of in pairs(S.sets) do
    local add, cut = {}, {}
    for member, present in pairs(of) do
      if present then add[#add + 1] = member else cut[#cut + 1] = member end
    end
    send('SREM', key, cut)
    send('SADD', key, add)
  end
  S.sorted, S.sets, S.added = {}, {}, {}
end

-- A waiting job. It has room for what a claim adds: a table that grows is what a script spends most of its time on.
local function new_job(id, track, priority, suspicion, lane, epoch, run_at, keyed)
  return {
    id = id, track = track, suspicion = suspicion, priority = priority, lane = lane, epoch = epoch, run_at = run_at,
    keyed = keyed, leased = false, session = false, nonce = false, started_at = 0, started = false, lost = false,
    blame = BLAMES_NOBODY, cancelled = false,
  }
end

local function decode(id, text)
  if not text then return false end
  local rank, lane, suspicion, run_at, epoch = struct.unpack(WAITING, text)
  local keyed = rank >= KEYED
  if keyed then rank = rank - KEYED end
  local isolated = rank >= ISOLATED and 1 or 0
  rank = rank - isolated * ISOLATED
  local track = math.floor(rank / PRIORITIES) * 2 + isolated
  local job = new_job(id, track, rank % PRIORITIES, suspicion, lane, epoch, run_at, keyed)
  if #text > WAITING_BYTES then
    local flags
    job.leased = true
    job.nonce, job.session, flags, job.started_at = struct.unpack(HOLDING, text, WAITING_BYTES + 1)
    if flags > 0 then
      job.started = bit.band(flags, STARTED) ~= 0
      job.lost = bit.band(flags, LOST) ~= 0
      if bit.band(flags, SHARED) ~= 0 then job.blame = BLAMES_SHARED end
      if bit.band(flags, ALONE) ~= 0 then job.blame = BLAMES_ALONE end
      job.cancelled = bit.band(flags, CANCELLED) ~= 0
    end
  end
  return job
end

local function encode_waiting(track, priority, suspicion, lane, epoch, run_at, keyed)
  local isolated = track % 2
  local rank = (track - isolated) / 2 * PRIORITIES + priority + isolated * ISOLATED + (keyed and KEYED or 0)
  return struct.pack(WAITING, rank, lane, suspicion, run_at, epoch)
end

local function encode(job)
  local text = encode_waiting(job.track, job.priority, job.suspicion, job.lane, job.epoch, job.run_at, job.keyed)
  if not job.leased then return text end
  local flags = (job.started and STARTED or 0) + (job.lost and LOST or 0) + (job.cancelled and CANCELLED or 0)
    + (job.blame == BLAMES_SHARED and SHARED or 0) + (job.blame == BLAMES_ALONE and ALONE or 0)
  return text .. struct.pack(HOLDING, job.nonce, job.session, flags, job.started_at)
end

-- The records of these jobs as texts, in order; false where there is none.
local function fetch(ids)
  if next(S.fresh) then settle() end
  if #ids <= UNPACK_MAX then return #ids > 0 and call('HMGET', S.D .. 'j', unpack(ids)) or {} end
  local all = {}
  for from = 1, #ids, UNPACK_MAX do
    local texts = call('HMGET', S.D .. 'j', unpack(ids, from, math.min(from + UNPACK_MAX - 1, #ids)))
    for n = 1, #texts do all[from + n - 1] = texts[n] end
  end
  return all
end

-- Reads the records of these jobs at once; `job_of` finds them then.
local function prefetch(ids)
  for n, text in ipairs(fetch(ids)) do
    if S.jobs[ids[n]] == nil then S.jobs[ids[n]] = decode(ids[n], text) end
  end
end

-- The record of a job, or false.
local function job_of(id)
  if S.fresh[id] then settle() end
  local job = S.jobs[id]
  if job == nil then
    job = decode(id, call('HGET', S.D .. 'j', id))
    S.jobs[id] = job
  end
  return job
end

-- Keeps a write: the record of a job that had none. It is read again before anybody asks for it.
local function set_fresh(id, text)
  local n = #S.records
  S.records[n + 1], S.records[n + 2] = id, text
  S.fresh[id], S.jobs[id] = true, nil
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
  send('HSET', S.D .. 'j', S.records)
  S.changed, S.records, S.fresh = {}, {}, {}
end

-- The first member of a sorted set and its score.
local function first_of(key)
  local found = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return found[1], tonumber(found[2])
end

-- The turn of the queues, the tracks in which one ever stood in this life, and whether anybody has a weight of its own or
-- a limit for many targets: nearly everywhere nobody has, and nobody asks then.
local function meta()
  if not S.meta then
    local found = call('HMGET', S.D .. 'meta', 'turn', 'tracks', 'we', 'lp')
    S.meta = {
      turn = tonumber(found[1]) or 0, tracks = tonumber(found[2]) or 0, we = found[3] == '1', lp = found[4] == '1',
    }
  end
  return S.meta
end

-- Notes whether `we` or `lp` has members.
local function note_members(name)
  local any = call('EXISTS', S.D .. name) == 1
  meta()[name] = any
  call('HSET', S.D .. 'meta', name, any and '1' or '0')
end

-- Compares as Redis does: Lua's `<` on text follows the server's locale.
local function bytes_before(a, b)
  for n = 1, math.min(#a, #b) do
    local x, y = a:byte(n), b:byte(n)
    if x ~= y then return x < y end
  end
  return #a < #b
end

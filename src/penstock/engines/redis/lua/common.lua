-- Common to all scripts: keys, clock, readers of stored forms, counting, lines, news.
--
-- KEYS[1]  the store's prefix with its hash tag, as `{penstock}:`. Every key below is this prefix and a name, so that
--          the whole store lives in one slot of a cluster, and what a script touches is on the node that runs it.
-- ARGV[1]  empty: read the server's clock. Otherwise `wall steady boot`, the clock of a test.
--
-- key            kind    what
-- meta           hash    schema, epoch, replid; seq, lane, policy, process: last numbers given; ended, scheduled,
--                        steered: counts of such events; late: results refused; bounded: there if `bounds` is;
--                        greatest: no id that is listed is greater, not there if that is not known
-- jobs           hash    id -> body: created i8, first seq of the row that it entered i8, kind (lane I4, policy I4,
--                        flags B), priority b, length of envelope I4, then by flags expiry i8, unique key (until c1,
--                        I4, text), idempotency key (I4, text), crc I4, details (I4, JSON), stage I4; last the envelope
-- pages, page:ID string  every id, in pages of the ids from ID on: see listing.lua
-- lanes, lane_of hash    number <-> queue \0 task; used: queue -> how many lanes it has
-- policies, policy_of    number -> `keep_ms JSON`; JSON -> number; policy_jobs: number -> how many jobs have it
-- lines          zset    line \0 queue \0 task, score = that of the line's first job, of lines that have jobs. A line is
--                        a lane, or a lane and `a` for jobs that run alone (set alone: their ids)
-- aside          set     members of `lines` that a claim took out of it because their queue is paused
-- line:LINE      zset    ready jobs in rows: up to 20 ids whose seqs follow one another, a NUL behind each;
--                        score = (100 - priority) * 2^45 + seq of the first that is left
-- since          hash    id -> `ms seq`: since when it is ready and the first seq of its row, where that is not since it
--                        was added
-- scheduled      zset    id, score = due; expiry: id, score = deadline, of waiting jobs without a charged attempt
-- claims         hash    id -> process number I4, beat i8, place in its answer I4, fate B, fence (B, text
--                        `number.token`), kind c9 of the body, then as `more` number i8, claimed i8, process (I2, text)
-- held:N         set     ids that process number N has claims on; cancel: set of ids that were asked to stop
-- more           hash    id -> last attempt of a job that came back: number i8, claimed i8, process (I2, text),
--                        ran_us i8, counters (I2, JSON)
-- ended          hash    id -> state B, ended i8, then as `more`, degraded (I2, text), result (B whether, bytes)
-- done:QUEUE:KEEP  zset  ended jobs that are forgotten after KEEP ms, in rows as in lines, score = when they ended;
--                        buried: the others: id, score = when it ended
-- groups         set     of groups of buried jobs; group:GROUP: zset as `buried`; grouped: hash id -> group
-- forget         zset    QUEUE:KEEP, score = not before then is anything of it to be forgotten
-- kept, finished hash    queue -> ended jobs that it keeps; that it has ever ended; rates: `sampled_ms sampled rate`
-- history        hash    id -> MessagePack [whether the error was forgiven, [at_ms, JSON], ...]; progress: id -> JSON
-- log:ID         hash    attempt -> text
-- uniques        hash    key -> until c1, time after which a window is over (`%d` and a blank), holder; windows: zset
-- idem           hash    idempotency key -> id
-- ledger         hash    entry -> MessagePack [by, fence, until, value]; ledger_until: zset; ledger_of:ID: set
-- shared:KIND    hash    key -> value that workers agree on
-- paused, bounds         set of queues; hash queue -> most unfinished jobs
-- workers        hash    worker -> MessagePack [info, enrolled, lease_ms]; draining: set of workers
-- processes      hash    process -> `number worker`; void: the same of processes whose lease is void; deaths: void
--                        process -> tokens of the claims that had begun in it, if its end was seen; leases: zset of
--                        ends; boots: process -> boot of the clock; beats: process -> [beat, mark, late ids ...]
-- news:KIND      stream  work (id = seq), done (= ended), due (= scheduled), steer (= steered)

local P, call = KEYS[1], redis.call
local sub, byte, floor = string.sub, string.byte, math.floor

-- All that scripts share hangs on this table. For a function, Lua looks up each variable that it takes from around it
-- whenever the script runs and makes the function anew, in a list of all such variables: with a hundred of them that
-- took half the time of a short script.
local my = {}

local now
if ARGV[1] == '' then
  local time = call('TIME')
  now = time[1] * 1000 + floor(time[2] / 1000)
  my.steady, my.boot = now, ''
else
  local wall, counted, name = ARGV[1]:match('^(%-?%d+) (%-?%d+) (.*)$')
  now, my.steady, my.boot = tonumber(wall), tonumber(counted), name
end

my.SCHEDULED, my.READY, my.RUNNING, my.SUCCEEDED, my.CANCELLED, my.EXPIRED, my.BURIED = 1, 2, 3, 4, 5, 6, 7
my.HAS_EXPIRY, my.HAS_UNIQUE, my.HAS_KEY, my.HAS_CRC, my.HAS_DETAILS, my.HAS_STAGE = 1, 2, 4, 8, 16, 32
my.AT_ONCE, my.MOST_AT_ONCE = 4000, 1000

my.cursor = 1
function my.take()
  my.cursor = my.cursor + 1
  return ARGV[my.cursor]
end

function my.text(number) return string.format('%d', number) end

-- Do a command with many arguments, in slices that fit Lua's stack.
function my.many(command, name, list)
  for from = 1, #list, my.AT_ONCE do
    call(command, P .. name, unpack(list, from, math.min(from + my.AT_ONCE - 1, #list)))
  end
end

function my.many_of(command, name, list)
  if #list <= my.AT_ONCE then
    return #list > 0 and call(command, P .. name, unpack(list)) or {}
  end
  local found = {}
  for from = 1, #list, my.AT_ONCE do
    for _, one in ipairs(call(command, P .. name, unpack(list, from, math.min(from + my.AT_ONCE - 1, #list)))) do
      found[#found + 1] = one
    end
  end
  return found
end

-- Whether there is any of what there seldom is. Who writes it says so, as what was seen is remembered.
my.some = {}
function my.has_some(name)
  local found = my.some[name]
  if found == nil then
    found = call('EXISTS', P .. name) == 1
    my.some[name] = found
  end
  return found
end

-- Fields of a hash, or nothing if the hash is empty, as the seldom ones are.
function my.seldom(name, ids)
  if #ids == 0 or not my.has_some(name) then return {} end
  return my.many_of('HMGET', name, ids)
end

-- bodies --------------------------------------------------------------------------------------------------------------

-- Lane, policy, created, first seq of its row, flags, priority, length of the envelope.
function my.head(body)
  local created, seq, lane, policy, flags, priority, length = struct.unpack('>i8i8I4I4BbI4', body)
  return lane, policy, created, seq, flags, priority, length
end

function my.has(flags, flag) return floor(flags / flag) % 2 == 1 end

function my.expiry_of(body, flags) return my.has(flags, my.HAS_EXPIRY) and struct.unpack('>i8', body, 31) or nil end

function my.unique_of(body, flags)
  if not my.has(flags, my.HAS_UNIQUE) then return nil end
  local from = my.has(flags, my.HAS_EXPIRY) and 39 or 31
  local length = struct.unpack('>I4', body, from + 1)
  return body:sub(from + 5, from + 4 + length), body:sub(from, from)
end

function my.idempotency_key_of(body, flags)
  if not my.has(flags, my.HAS_KEY) then return nil end
  local from = my.has(flags, my.HAS_EXPIRY) and 39 or 31
  if my.has(flags, my.HAS_UNIQUE) then from = from + 5 + struct.unpack('>I4', body, from + 1) end
  local length = struct.unpack('>I4', body, from)
  return body:sub(from + 4, from + 3 + length)
end

-- Where in a body its keys, details and stage begin, and its envelope.
function my.parts_of(body, flags)
  local at = my.has(flags, my.HAS_EXPIRY) and 39 or 31
  local parts = { keys = at }
  if my.has(flags, my.HAS_UNIQUE) then at = at + 5 + struct.unpack('>I4', body, at + 1) end
  if my.has(flags, my.HAS_KEY) then at = at + 4 + struct.unpack('>I4', body, at) end
  if my.has(flags, my.HAS_CRC) then at = at + 4 end
  parts.details = at
  if my.has(flags, my.HAS_DETAILS) then at = at + 4 + struct.unpack('>I4', body, at) end
  parts.stage = at
  if my.has(flags, my.HAS_STAGE) then at = at + 4 end
  return parts, at
end

my.lane_names = {}
function my.lane_name(lane)
  local name = my.lane_names[lane]
  if not name then
    name = call('HGET', P .. 'lanes', lane)
    my.lane_names[lane] = name
  end
  return name
end

function my.split(name)
  local at = name:find('\0', 1, true)
  return name:sub(1, at - 1), name:sub(at + 1)
end

function my.queue_of(lane) return (my.split(my.lane_name(lane))) end

my.policy_bodies = {}
function my.policy_body(policy)
  local body = my.policy_bodies[policy]
  if not body then
    body = call('HGET', P .. 'policies', policy)
    my.policy_bodies[policy] = body
  end
  return body
end

-- What a body says of its kind.
function my.kind_of(body) return sub(body, 17, 25) end

my.infos = {}
function my.info_of(body) return my.info(my.kind_of(body)) end

-- What the kind of a job names: its lane, its policy and its flags.
function my.info(kind)
  local info = my.infos[kind]
  if not info then
    local lane, policy, flags = struct.unpack('>I4I4B', kind)
    local queue, task = my.split(my.lane_name(lane))
    local keep = my.policy_body(policy):match('^%-?%d+')
    info = { lane = lane, policy = policy, queue = queue, task = task, keep = keep, place = queue .. ':' .. keep }
    info.is_unique, info.groups = my.has(flags, my.HAS_UNIQUE), {}
    my.infos[kind] = info
  end
  return info
end

-- Lanes and policies that an answer names by number.
my.shown = { lanes = {}, policies = {}, policies_seen = {}, lanes_seen = {} }
function my.show(info)
  if info.is_shown then return end
  info.is_shown = true
  if not my.shown.lanes_seen[info.lane] then
    my.shown.lanes_seen[info.lane] = true
    for _, value in ipairs({ info.lane, info.queue, info.task }) do my.shown.lanes[#my.shown.lanes + 1] = value end
  end
  if not my.shown.policies_seen[info.policy] then
    my.shown.policies_seen[info.policy] = true
    my.shown.policies[#my.shown.policies + 1] = info.policy
    my.shown.policies[#my.shown.policies + 1] = my.policy_body(info.policy)
  end
end

my.lane_numbers = {}
function my.lane_of(queue, task)
  local name = queue .. '\0' .. task
  local lane = my.lane_numbers[name]
  if lane then return lane end
  lane = tonumber(call('HGET', P .. 'lane_of', name) or nil)
  if not lane then
    lane = call('HINCRBY', P .. 'meta', 'lane', 1)
    call('HSET', P .. 'lane_of', name, lane)
    call('HSET', P .. 'lanes', lane, name)
    call('HINCRBY', P .. 'used', queue, 1)
  end
  my.lane_numbers[name], my.lane_names[lane] = lane, name
  return lane
end

my.policy_numbers = {}
function my.policy_of(body, keep)
  local policy = my.policy_numbers[body]
  if policy then return policy end
  policy = tonumber(call('HGET', P .. 'policy_of', body) or nil)
  if not policy then
    policy = call('HINCRBY', P .. 'meta', 'policy', 1)
    call('HSET', P .. 'policy_of', body, policy)
    call('HSET', P .. 'policies', policy, keep .. ' ' .. body)
  end
  my.policy_numbers[body] = policy
  return policy
end

my.policy_moves = {}
function my.count_policy(policy, by)
  local number = tonumber(policy)
  my.policy_moves[number] = (my.policy_moves[number] or 0) + by
end

-- Forget a policy with its last job.
function my.write_policies()
  for policy, by in pairs(my.policy_moves) do
    if call('HINCRBY', P .. 'policy_jobs', policy, by) <= 0 then
      call('HDEL', P .. 'policy_of', (my.policy_body(policy):match('^%-?%d+ (.*)$')))
      call('HDEL', P .. 'policies', policy)
      call('HDEL', P .. 'policy_jobs', policy)
    end
  end
end

-- counting ------------------------------------------------------------------------------------------------------------

my.moves = {}
function my.count(lane, state, by)
  local field = lane * 10 + state
  my.moves[field] = (my.moves[field] or 0) + by
end

-- Forget a lane with its last job, and what was measured of its queue with its last lane.
function my.drop_lane_if_empty(lane)
  local fields = {}
  for state = 0, 7 do fields[#fields + 1] = lane * 10 + state end
  for _, found in ipairs(call('HMGET', P .. 'counts', unpack(fields))) do
    if tonumber(found or 0) ~= 0 then return end
  end
  local name = my.lane_name(lane)
  local queue = my.split(name)
  call('HDEL', P .. 'counts', unpack(fields))
  call('HDEL', P .. 'lanes', lane)
  call('HDEL', P .. 'lane_of', name)
  if call('HINCRBY', P .. 'used', queue, -1) <= 0 then
    call('HDEL', P .. 'used', queue)
    call('HDEL', P .. 'finished', queue)
    call('HDEL', P .. 'rates', queue)
    call('HDEL', P .. 'kept', queue)
  end
end

function my.write_counts()
  local lost = {}
  for field, by in pairs(my.moves) do
    if by ~= 0 then
      local lane = floor(field / 10)
      call('HINCRBY', P .. 'counts', field, by)
      lost[lane] = (lost[lane] or 0) + by
    end
  end
  my.moves = {}
  for lane, by in pairs(lost) do
    if by < 0 then my.drop_lane_if_empty(lane) end
  end
end

-- lines ---------------------------------------------------------------------------------------------------------------

my.IN_A_ROW = 20

function my.draw_seq()
  if not my.seq then
    my.seq = tonumber(call('HGET', P .. 'meta', 'seq') or 0)
    my.first_seq = my.seq
  end
  my.seq = my.seq + 1
  return my.seq
end

function my.rank(priority, seq) return my.text((100 - priority) * 35184372088832 + seq) end

-- Put a job at the end of a line; gives the first seq of its row.
my.standing, my.standing_queues = {}, {}
function my.stand(lane, alone, priority, id)
  local line, seq = alone and lane .. 'a' or lane, my.draw_seq()
  local rows = my.standing[line]
  if not rows then
    rows = { lane = lane, least = math.huge }
    my.standing[line] = rows
    my.standing_queues[my.queue_of(lane)] = true
  end
  local row = rows[#rows]
  if not row or row.priority ~= priority or #row == my.IN_A_ROW or row.first + #row ~= seq then
    row = { priority = priority, first = seq, score = (100 - priority) * 35184372088832 + seq }
    rows[#rows + 1], rows.least = row, math.min(rows.least, row.score)
  end
  row[#row + 1] = id
  return row.first
end

-- Put a job that is not new at the end of a line.
function my.stand_again(lane, alone, priority, id)
  call('HSET', P .. 'since', id, my.text(now) .. ' ' .. my.text(my.stand(lane, alone, priority, id)))
end

function my.write_lines()
  for line, rows in pairs(my.standing) do
    local places = {}
    for at, row in ipairs(rows) do
      places[2 * at - 1], places[2 * at] = my.rank(row.priority, row.first), table.concat(row, '\0') .. '\0'
    end
    my.many('ZADD', 'line:' .. line, places)
    call('ZADD', P .. 'lines', 'LT', my.text(rows.least), line .. '\0' .. my.lane_name(rows.lane))
  end
  my.standing = {}
end

-- Write down where a line begins now, after jobs were taken out of it; `member` is what stands for it in `lines`.
function my.set_head(line, member)
  local head = call('ZRANGE', P .. 'line:' .. line, 0, 0, 'WITHSCORES')[2]
  if head then
    call('ZADD', P .. 'lines', head, member)
    return
  end
  call('ZREM', P .. 'lines', member)
  if my.has_some('paused') then call('SREM', P .. 'aside', member) end
end

-- Take an id out of rows of a sorted set between two scores; says whether it was there.
function my.leave_row(key, least, most, id)
  local found = call('ZRANGEBYSCORE', P .. key, least, most, 'WITHSCORES')
  for at = 1, #found, 2 do
    local from, to = ('\0' .. found[at]):find('\0' .. id .. '\0', 1, true)
    if from then
      local left = sub(found[at], 1, from - 1) .. sub(found[at], to)
      call('ZREM', P .. key, found[at])
      if left ~= '' then call('ZADD', P .. key, found[at + 1], left) end
      return true
    end
  end
  return false
end

function my.leave_line(body, id)
  local lane, _, _, seq, _, priority = my.head(body)
  local since = call('HGET', P .. 'since', id)
  if since then
    seq = tonumber(since:match(' (%d+)$'))
    call('HDEL', P .. 'since', id)
  end
  local least, most = my.rank(priority, seq), my.rank(priority, seq + my.IN_A_ROW - 1)
  for _, line in ipairs({ lane, lane .. 'a' }) do
    if my.leave_row('line:' .. line, least, most, id) then my.set_head(line, line .. '\0' .. my.lane_name(lane)) end
  end
end

function my.is_alone(id) return call('SISMEMBER', P .. 'alone', id) == 1 end

-- news ----------------------------------------------------------------------------------------------------------------

function my.announce(kind, number, fields)
  call('XADD', P .. 'news:' .. kind, 'MAXLEN', '~', '32', my.text(number) .. '-0', unpack(fields))
end

my.finished_ids, my.scheduled = {}, 0
my.steered = {}

-- The last act of every script that writes.
function my.close()
  my.write_lines()
  if my.seq and my.seq > my.first_seq then
    call('HSET', P .. 'meta', 'seq', my.text(my.seq))
    local fields = {}
    for queue in pairs(my.standing_queues) do
      if #fields < 32 then
        fields[#fields + 1] = 'queue'
        fields[#fields + 1] = queue
      else
        fields = { 'queue', '*' }
        break
      end
    end
    if #fields == 0 then fields = { 'queue', '*' } end
    my.announce('work', my.seq, fields)
  end
  if #my.finished_ids > 0 then
    local fields = { 'job', '*' }
    if #my.finished_ids <= 16 then
      fields = {}
      for _, id in ipairs(my.finished_ids) do
        fields[#fields + 1] = 'job'
        fields[#fields + 1] = id
      end
    end
    my.announce('done', call('HINCRBY', P .. 'meta', 'ended', #my.finished_ids), fields)
  end
  if my.scheduled > 0 then my.announce('due', call('HINCRBY', P .. 'meta', 'scheduled', my.scheduled), { 'n', my.scheduled }) end
  if #my.steered > 0 then my.announce('steer', call('HINCRBY', P .. 'meta', 'steered', 1), my.steered) end
  my.write_counts()
  my.write_policies()
end

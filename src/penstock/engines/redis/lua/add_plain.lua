-- Store new jobs that are plain: ready at once, without keys or parents, in lanes and under policies that are known, on
-- a store without bounds. It is `add` for these alone, by itself and without functions, because an enqueue is mostly
-- this, and `add` takes three times as long.
--
-- before: ids unknown -> after: each job in `jobs`, the list of ids and a line; counted. Anything else: nothing is changed.
-- KEYS, keys and forms: see common.lua. ARGV: clock, the least of the ids, the greatest if they are many that rise or
-- else empty, then runs: queue, task, policy, how many; for each id, which no other of them has, and body from its flags
-- on. Answers 1, or 2 if the last page of ids has become long, or 0 if these jobs are for `add` to store.

local P, call, byte, format, concat = KEYS[1], redis.call, string.byte, string.format, table.concat
local known = call('HMGET', P .. 'meta', 'bounded', 'greatest')
local is_bounded, greatest = known[1], known[2]
if is_bounded then return 0 end
local now
if ARGV[1] == '' then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
else
  now = tonumber(ARGV[1]:match('^%-?%d+'))
end

local runs, ids, at = {}, {}, 4
while ARGV[at] do
  local queue, task, size = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 3])
  local name = queue .. '\0' .. task
  local lane, policy = call('HGET', P .. 'lane_of', name), call('HGET', P .. 'policy_of', ARGV[at + 2])
  if not lane or not policy then return 0 end
  local run = { name = name, queue = queue, lane = lane, policy = policy, first = at + 4, size = size }
  runs[#runs + 1], run.size_text = run, ARGV[at + 3]
  for one = at + 4, at + 2 + 2 * size, 2 do ids[#ids + 1] = ARGV[one] end
  at = at + 4 + 2 * size
end
for _, body in ipairs(call('HMGET', P .. 'jobs', unpack(ids))) do
  if body then return 0 end
end

-- They go on the last page of the list; an id that belongs before it is for `add`.
local page = call('ZRANGE', P .. 'pages', '-1', '-1')[1]
if not page then return 0 end
local function is_before(one, other)
  local at, length = 1, #other
  while at <= length and byte(one, at) == byte(other, at) do at = at + 1 end
  return at <= length and (byte(one, at) or 0) < byte(other, at)
end
if is_before(ARGV[2], page) then return 0 end

-- In each lane they stand in rows, see `line` in common.lua.
local last = call('HINCRBY', P .. 'meta', 'seq', runs[2] and #ids or runs[1].size_text)
local seq, jobs, news, size = last - #ids + 1, {}, {}, 0
for at_run, run in ipairs(runs) do
  local row, rows, priority, front, until_, least = {}, {}, nil, nil, 0, math.huge
  for one = run.first, run.first + 2 * run.size - 2, 2 do
    local id, rest = ARGV[one], ARGV[one + 1]
    local own = byte(rest, 2)
    if own ~= priority or seq == until_ then
      if row[1] then rows[#rows + 1] = concat(row, '\0') .. '\0' end
      row, priority, until_ = {}, own, seq + 20
      local score = (100 - (own > 127 and own - 256 or own)) * 35184372088832 + seq
      if score < least then least = score end
      rows[#rows + 1] = format('%d', score)
      front = struct.pack('>i8i8I4I4', now, seq, run.lane, run.policy)
    end
    row[#row + 1] = id
    jobs[size + 1], jobs[size + 2] = id, front .. rest
    seq, size = seq + 1, size + 2
  end
  rows[#rows + 1] = concat(row, '\0') .. '\0'
  call('ZADD', P .. 'line:' .. run.lane, unpack(rows))
  call('ZADD', P .. 'lines', 'LT', format('%d', least), run.lane .. '\0' .. run.name)
  call('HINCRBY', P .. 'counts', run.lane .. '2', run.size_text)
  call('HINCRBY', P .. 'policy_jobs', run.policy, run.size_text)
  if at_run <= 16 then
    news[2 * at_run - 1], news[2 * at_run] = 'queue', at_run < 16 and run.queue or '*'
  end
end
call('HSET', P .. 'jobs', unpack(jobs))
call('XADD', P .. 'news:work', 'MAXLEN', '~', '32', format('%d-0', last), unpack(news))

-- Ids that rise, and belong behind all that are listed, begin a page when the last one is full, so that none is divided.
local rising, length = ARGV[3] ~= '', 0
if rising then
  rising = greatest and not is_before(ARGV[2], greatest)
  length = call('STRLEN', P .. 'page:' .. page)
end
if rising and length + 37 * #ids > 7400 then
  for from = 1, #ids, 200 do
    page = ids[from]
    call('ZADD', P .. 'pages', '0', page)
    length = call('APPEND', P .. 'page:' .. page, concat(ids, '\0', from, math.min(from + 199, #ids)) .. '\0')
  end
else
  length = call('APPEND', P .. 'page:' .. page, concat(ids, '\0') .. '\0')
end
if rising then
  call('HSET', P .. 'meta', 'greatest', ARGV[3])
elseif greatest then
  call('HDEL', P .. 'meta', 'greatest')
end
return length > 16384 and 2 or 1

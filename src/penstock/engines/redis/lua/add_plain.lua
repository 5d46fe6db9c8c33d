-- Store new jobs that are plain: ready at once, without keys or parents, in lanes and under policies that are known, on
-- a store without bounds. It is `add` for these alone, by itself and without functions, because an enqueue is mostly
-- this, and `add` takes three times as long.
--
-- before: ids unknown -> after: each job in `jobs`, the list of ids and a line; counted. Anything else: nothing is changed.
-- KEYS, keys and forms: see common.lua. ARGV: clock, then runs: queue, task, policy, how many; for each id, body from
-- its flags on. Answers 1, or 2 if the last page of ids has become long, or 0 if these jobs are for `add` to store.

local P, call, byte = KEYS[1], redis.call, string.byte
if call('EXISTS', P .. 'bounds') == 1 then return 0 end
local now
if ARGV[1] == '' then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
else
  now = tonumber(ARGV[1]:match('^%-?%d+'))
end

local runs, ids, seen, at = {}, {}, {}, 2
while ARGV[at] do
  local queue, task, size = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 3])
  local name = queue .. '\0' .. task
  local lane, policy = call('HGET', P .. 'lane_of', name), call('HGET', P .. 'policy_of', ARGV[at + 2])
  if not lane or not policy then return 0 end
  runs[#runs + 1] = { name = name, queue = queue, lane = lane, policy = policy, first = at + 4, size = size }
  for one = at + 4, at + 2 + 2 * size, 2 do
    local id = ARGV[one]
    if seen[id] then return 0 end
    seen[id] = true
    ids[#ids + 1] = id
  end
  at = at + 4 + 2 * size
end
for _, body in ipairs(call('HMGET', P .. 'jobs', unpack(ids))) do
  if body then return 0 end
end

-- They go on the last page of the list; an id that belongs before it is for `add`.
local page = call('ZRANGE', P .. 'pages', -1, -1)[1]
if not page then return 0 end
local size = #page
for _, id in ipairs(ids) do
  local one = 1
  while one <= size and byte(id, one) == byte(page, one) do one = one + 1 end
  if one <= size and (byte(id, one) or 0) < byte(page, one) then return 0 end
end

local last = call('HINCRBY', P .. 'meta', 'seq', #ids)
local seq, jobs, news = last - #ids, {}, {}
for at_run, run in ipairs(runs) do
  local front, places, least = struct.pack('>I4I4i8', run.lane, run.policy, now), {}, math.huge
  for one = run.first, run.first + 2 * run.size - 2, 2 do
    local id, rest = ARGV[one], ARGV[one + 1]
    local priority, size, job = byte(rest, 2), #places, #jobs
    if priority > 127 then priority = priority - 256 end
    seq = seq + 1
    local score = (100 - priority) * 35184372088832 + seq
    if score < least then least = score end
    places[size + 1], places[size + 2] = score, id
    jobs[job + 1], jobs[job + 2] = id, front .. rest
  end
  call('ZADD', P .. 'line:' .. run.lane, unpack(places))
  call('ZADD', P .. 'lines', 'LT', least, run.lane .. '\0' .. run.name)
  call('HINCRBY', P .. 'counts', run.lane * 10 + 2, run.size)
  call('HINCRBY', P .. 'policy_jobs', run.policy, run.size)
  if at_run <= 16 then
    news[2 * at_run - 1], news[2 * at_run] = 'queue', at_run < 16 and run.queue or '*'
  end
end
call('HSET', P .. 'jobs', unpack(jobs))
call('XADD', P .. 'news:work', 'MAXLEN', '~', 32, string.format('%.0f-0', last), unpack(news))
return call('APPEND', P .. 'page:' .. page, table.concat(ids, '\0') .. '\0') > 16384 and 2 or 1

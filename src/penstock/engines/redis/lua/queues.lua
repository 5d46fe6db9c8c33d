-- Show every queue that holds jobs or has a switch set, and the counts by lane. Read-only.
--
-- ARGV: clock. Answers {now, counts, lanes as number and name, paused, bounds, rates, since: queue and oldest}.
-- flags: no-writes
-- include common

local oldest = {}

-- A ready job's time in line: when it came back or became due, else when it was added.
local function since_of(id)
  local since = call('HGET', P .. 'since', id)
  if since then return tonumber(since:match('^%-?%d+')) end
  return (select(3, my.head(call('HGET', P .. 'jobs', id))))
end

-- The first of each priority stood in line before the others of it.
local function look_at(line, queue)
  local from = '-inf'
  while true do
    local first = call('ZRANGEBYSCORE', P .. 'line:' .. line, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not first[1] then return end
    local since = since_of(first[1]:match('^[^%z]+'))
    if not oldest[queue] or since < oldest[queue] then oldest[queue] = since end
    from = my.text((math.floor(first[2] / 35184372088832) + 1) * 35184372088832)
  end
end

local function look_at_all(members)
  for _, member in ipairs(members) do
    local line, name = my.split(member)
    look_at(line, (my.split(name)))
  end
end

look_at_all(call('ZRANGE', P .. 'lines', 0, -1))
look_at_all(call('SMEMBERS', P .. 'aside'))
local since = {}
for queue, ms in pairs(oldest) do
  since[#since + 1] = queue
  since[#since + 1] = my.text(ms)
end
return {
  now, call('HGETALL', P .. 'counts'), call('HGETALL', P .. 'lanes'), call('SMEMBERS', P .. 'paused'),
  call('HGETALL', P .. 'bounds'), call('HGETALL', P .. 'rates'), since,
}

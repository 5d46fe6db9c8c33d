-- Do what passing time does, in one step of at most `limit` jobs.
--
-- before -> after: lapsed leases void, their claims under new fences of the tender; due jobs in lines; overdue ones
-- ended; old ones forgotten; rates measured.
-- ARGV: clock, tender, limit, most ended jobs that a queue keeps, random seed of the fences, the latest time that the
-- clock can show unless it was set forward, or empty; `1` while nothing is to be voided because it was.
-- Answers {now, due, expired, pruned, whether there is more, next_ms or empty, lapse_ms or empty, scheduled, the longest
-- lease if the clock jumped or else 0, fates and holders, lanes, policies, claims}.
-- include common
-- include leases
-- include ends
-- include taking

local tender, left, most_kept = my.take(), tonumber(my.take()), tonumber(my.take())
local seed, latest, spares = my.take(), tonumber(my.take()), my.take() == '1'
local jumped = latest ~= nil and now > latest

-- Cut leases that reach farther than they were given for: the server's clock was set back.
local function cut_leases()
  local found = call('ZRANGE', P .. 'leases', 0, -1, 'WITHSCORES')
  for at = 1, #found, 2 do
    if tonumber(found[at + 1]) > my.steady then
      local _, worker = my.process_of(found[at])
      local most = my.steady + my.lease_ms_of(worker)
      if tonumber(found[at + 1]) > most then call('ZADD', P .. 'leases', my.text(most), found[at]) end
    end
  end
end

local function void_lapsed()
  local number = my.process_of(tender)
  if not number or my.has_lapsed(tender) then return end
  if ARGV[1] == '' then
    for _, name in ipairs(call('ZRANGEBYSCORE', P .. 'leases', '-inf', my.text(my.steady))) do my.void_lease(name) end
  else
    for _, name in ipairs(call('HKEYS', P .. 'processes')) do
      if my.has_lapsed(name) then my.void_lease(name) end
    end
  end
  local void = call('HGETALL', P .. 'void')
  for at = 2, #void, 2 do
    left = my.take_all(void[at - 1], void[at], number, tender, left, seed)
  end
  if #void > 0 then my.drop_empty_leases() end
end

local function make_due()
  local ids = call('ZRANGEBYSCORE', P .. 'scheduled', '-inf', my.text(now), 'LIMIT', 0, math.max(left, 0))
  local bodies = my.many_of('HMGET', 'jobs', ids)
  for at, id in ipairs(ids) do
    local lane, _, _, _, _, priority = my.head(bodies[at])
    my.stand_again(lane, my.is_alone(id), priority, id)
    my.count(lane, my.SCHEDULED, -1)
    my.count(lane, my.READY, 1)
  end
  my.many('ZREM', 'scheduled', ids)
  my.write_lines()
  left = left - #ids
  return #ids
end

local function expire()
  local ids = call('ZRANGEBYSCORE', P .. 'expiry', '-inf', my.text(now), 'LIMIT', 0, math.max(left, 0))
  local bodies = my.many_of('HMGET', 'jobs', ids)
  for at, id in ipairs(ids) do my.end_waiting(id, bodies[at], my.EXPIRED) end
  my.write_ends()
  left = left - #ids
  return #ids
end

-- Give the first rows of ended jobs of a place that have so many in all, and those of the same time as the last.
local function first_rows(place, most, until_)
  local key, rows, seen = 'done:' .. place, {}, 0
  while true do
    local found = call('ZRANGE', P .. key, #rows, #rows + 99, 'WITHSCORES')
    for at = 1, #found, 2 do
      local last = rows[#rows]
      if tonumber(found[at + 1]) > until_ or (seen >= most and found[at + 1] ~= last.score) then return rows end
      local row = { key = key, text = found[at], score = found[at + 1], ids = {} }
      for id in row.text:gmatch('([^%z]+)%z') do row.ids[#row.ids + 1] = id end
      rows[#rows + 1] = row
      seen = seen + #row.ids
    end
    if #found < 200 then return rows end
  end
end

local function take_from(row, gone)
  local left_ids = {}
  for _, id in ipairs(row.ids) do
    if not gone[id] then left_ids[#left_ids + 1] = id .. '\0' end
  end
  if #left_ids == #row.ids then return end
  call('ZREM', P .. row.key, row.text)
  if left_ids[1] then call('ZADD', P .. row.key, row.score, table.concat(left_ids)) end
end

-- Forget the first jobs of some rows by time and id; gives how many.
local function forget_first(rows, most)
  local oldest, ids, gone = {}, {}, {}
  for _, row in ipairs(rows) do
    for _, id in ipairs(row.ids) do oldest[#oldest + 1] = { tonumber(row.score), id } end
  end
  table.sort(oldest, function(one, other)
    if one[1] ~= other[1] then return one[1] < other[1] end
    return one[2] < other[2]
  end)
  for at = 1, math.min(most, #oldest) do
    ids[at] = oldest[at][2]
    gone[ids[at]] = true
  end
  for _, row in ipairs(rows) do take_from(row, gone) end
  my.forget(ids, true)
  left = left - #ids
  return #ids
end

local function set_forget(place)
  local first = call('ZRANGE', P .. 'done:' .. place, 0, 0, 'WITHSCORES')
  if first[2] then
    call('ZADD', P .. 'forget', my.text(first[2] + place:match(':(%-?%d+)$')), place)
  else
    call('ZREM', P .. 'forget', place)
  end
end

local function prune_old()
  local pruned = 0
  local places = call('ZRANGEBYSCORE', P .. 'forget', '-inf', my.text(now), 'LIMIT', 0, math.max(left, 0))
  for _, place in ipairs(places) do
    if left > 0 then
      local until_ = now - place:match(':(%-?%d+)$')
      pruned = pruned + forget_first(first_rows(place, left, until_), left)
      set_forget(place)
    end
  end
  return pruned
end

-- Forget the oldest ends of a queue, which stand in one place for each time that they are kept.
local function prune_surplus_of(queue, surplus)
  local rows = {}
  for _, place in ipairs(call('ZRANGE', P .. 'forget', 0, -1)) do
    if place:match('^([^:]*):') == queue then
      for _, row in ipairs(first_rows(place, surplus, math.huge)) do rows[#rows + 1] = row end
    end
  end
  return forget_first(rows, surplus)
end

local function queues_over()
  local found, over = call('HGETALL', P .. 'kept'), {}
  for at = 1, #found, 2 do
    local surplus = tonumber(found[at + 1]) - most_kept
    if surplus > 0 then over[#over + 1] = { found[at], surplus } end
  end
  return over
end

local function prune_surplus()
  local pruned = 0
  for _, one in ipairs(queues_over()) do
    if left > 0 then pruned = pruned + prune_surplus_of(one[1], math.min(one[2], left)) end
  end
  return pruned
end

local function drop_overdue(zset, hash)
  local found = call('ZRANGEBYSCORE', P .. zset, '-inf', my.text(now), 'LIMIT', 0, 1000)
  my.many('HDEL', hash, found)
  my.many('ZREM', zset, found)
end

-- Count what ended since the last sample, once it is 10 s old; from 60 s on, count from now.
local function sample_rates()
  for _, queue in ipairs(call('HKEYS', P .. 'used')) do
    local finished = call('HGET', P .. 'finished', queue) or '0'
    local known = call('HGET', P .. 'rates', queue)
    local sampled_ms, sampled, rate = now, finished, '0'
    if known then sampled_ms, sampled, rate = known:match('^(%-?%d+) (%d+) (.*)$') end
    local elapsed = now - sampled_ms
    if elapsed >= 10000 then rate = string.format('%.6g', (finished - sampled) * 1000 / elapsed) end
    if elapsed < 0 or elapsed >= 60000 then sampled_ms, sampled = now, finished end
    local fresh = my.text(sampled_ms) .. ' ' .. sampled .. ' ' .. rate
    if fresh ~= known then call('HSET', P .. 'rates', queue, fresh) end
  end
end

local function is_due(zset)
  return #call('ZRANGEBYSCORE', P .. zset, '-inf', my.text(now), 'LIMIT', 0, 1) > 0
end

local function has_more()
  if left > 0 then return false end
  return is_due('scheduled') or is_due('expiry') or is_due('forget') or call('EXISTS', P .. 'void') == 1
    or #queues_over() > 0
end

local function next_ms()
  local next_
  for _, zset in ipairs({ 'scheduled', 'expiry' }) do
    local first = call('ZRANGE', P .. zset, 0, 0, 'WITHSCORES')[2]
    if first and (not next_ or tonumber(first) < next_) then next_ = tonumber(first) end
  end
  return next_ and my.text(math.max(next_ - now, 0)) or ''
end

-- The clock of a test may have begun another boot, in which a lease has lapsed whatever its score.
local function lapse_ms()
  local found, first = call('ZRANGE', P .. 'leases', 0, ARGV[1] == '' and 1 or -1, 'WITHSCORES'), nil
  for at = 1, #found, 2 do
    if found[at] ~= tender then
      local left_ms = my.has_lapsed(found[at]) and 0 or found[at + 1] - my.steady
      first = math.min(first or left_ms, left_ms)
    end
  end
  return first and my.text(first) or ''
end

if ARGV[1] == '' then cut_leases() end
if not jumped and not spares then void_lapsed() end
local due, expired, pruned = make_due(), expire(), prune_old()
pruned = pruned + prune_surplus()
drop_overdue('windows', 'uniques')
drop_overdue('ledger_until', 'ledger')
my.close()
sample_rates()
local told = my.tell_taken()
local schedulings = call('HGET', P .. 'meta', 'scheduled') or '0'
return {
  now, due, expired, pruned, has_more() and 1 or 0, next_ms(), lapse_ms(), schedulings,
  jumped and my.longest_lease_ms() or 0, my.taken_fates, my.shown.lanes, my.shown.policies, told,
}

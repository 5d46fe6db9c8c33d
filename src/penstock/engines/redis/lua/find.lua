-- Walk the ids in falling order for a bounded number of steps, and show the jobs that stand as asked.
--
-- ARGV: clock, id to begin below or empty, how many ids to look at, most jobs to show, queue or empty, task or empty,
-- digits of the states, or empty for all. Answers {now, lanes, policies, jobs, last id looked at; empty at the end}.
-- flags: no-writes
-- include common
-- include listing
-- include seeing

local before, steps, most, queue, task, states = my.take(), tonumber(my.take()), tonumber(my.take()), my.take(), my.take(), my.take()
local function is_after(one, other) return my.is_before(other, one) end

-- The ids of a page in falling order, from below `before` on. Mostly they stand in rising order already.
local function falling(page)
  local ids, rising = {}, true
  for _, id in ipairs(my.ids_on(page)) do
    if before == '' or my.is_before(id, before) then
      rising = rising and (not ids[1] or my.is_before(ids[#ids], id))
      ids[#ids + 1] = id
    end
  end
  if not rising then table.sort(ids, is_after) end
  if rising then
    for at = 1, floor(#ids / 2) do ids[at], ids[#ids + 1 - at] = ids[#ids + 1 - at], ids[at] end
  end
  return ids
end

local ids, at_end = {}, false
local below = before == '' and '+' or '(' .. before
while #ids < steps and not at_end do
  local page = call('ZREVRANGEBYLEX', P .. 'pages', below, '-', 'LIMIT', 0, 1)[1]
  at_end = page == nil
  if page then
    for _, id in ipairs(falling(page)) do ids[#ids + 1] = id end
    below = '(' .. page
  end
end
local bodies = my.seldom('jobs', ids)

local matching = {}
local function in_lane(body)
  local lane = my.info_of(body).lane
  if matching[lane] == nil then
    local own_queue, own_task = my.split(my.lane_name(lane))
    matching[lane] = (queue == '' or own_queue == queue) and (task == '' or own_task == task)
  end
  return matching[lane]
end

local running, due = {}, {}
if states ~= '' then
  running = my.seldom('claims', ids)
  if my.has_some('scheduled') then due = my.many_of('ZMSCORE', 'scheduled', ids) end
end

-- Results may be long, so that what has ended is only looked at where it matters.
local function state_of(at)
  if running[at] then return my.RUNNING end
  if due[at] then return my.SCHEDULED end
  if call('HSTRLEN', P .. 'ended', ids[at]) == 0 then return my.READY end
  return byte(call('HGET', P .. 'ended', ids[at]), 1)
end

local found, last = {}, ''
for at, id in ipairs(ids) do
  if #found == most then break end
  last = id
  if in_lane(bodies[at]) and (states == '' or states:find(state_of(at), 1, true)) then found[#found + 1] = id end
end
if #found < most and at_end then last = '' end
local seen = my.see(found)
return { now, my.shown.lanes, my.shown.policies, seen, last }

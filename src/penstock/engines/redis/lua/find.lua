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

local matching = {}
local function in_lane(body)
  local lane = my.info_of(body).lane
  if matching[lane] == nil then
    local own_queue, own_task = my.split(my.lane_name(lane))
    matching[lane] = (queue == '' or own_queue == queue) and (task == '' or own_task == task)
  end
  return matching[lane]
end

-- Results may be long, so that what has ended is only looked at where it matters.
local function state_of(id, running, due)
  if running then return my.RUNNING end
  if due then return my.SCHEDULED end
  if call('HSTRLEN', P .. 'ended', id) == 0 then return my.READY end
  return byte(call('HGET', P .. 'ended', id), 1)
end

local found, last, looked = {}, '', 0

-- Look at ids in their order until enough are found.
local function look_at(ids)
  local bodies, running, due = my.seldom('jobs', ids), {}, {}
  if states ~= '' then
    running = my.seldom('claims', ids)
    if my.has_some('scheduled') then due = my.many_of('ZMSCORE', 'scheduled', ids) end
  end
  for at, id in ipairs(ids) do
    if #found == most then return end
    last, looked = id, looked + 1
    if in_lane(bodies[at]) and (states == '' or states:find(state_of(id, running[at], due[at]), 1, true)) then
      found[#found + 1] = id
    end
  end
end

-- As many at once as are still to be found; the more, the fewer of those that were looked at stand as asked.
local function look_through(ids)
  local from = 1
  while from <= #ids and #found < most do
    local size = math.max(most - #found, looked)
    look_at({ unpack(ids, from, math.min(from + size - 1, #ids)) })
    from = from + size
  end
end

local below, at_end = before == '' and '+' or '(' .. before, false
while #found < most and looked < steps and not at_end do
  local page = call('ZREVRANGEBYLEX', P .. 'pages', below, '-', 'LIMIT', 0, 1)[1]
  at_end = page == nil
  if page then
    look_through(falling(page))
    below = '(' .. page
  end
end
if #found < most then last = at_end and '' or last end
local seen = my.see(found)
return { now, my.shown.lanes, my.shown.policies, seen, last }

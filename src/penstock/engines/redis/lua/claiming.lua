-- How claims are taken and told.
-- include claims
-- include telling
-- include ends

-- Read on in a line until so many more of its jobs are known, or all that there are.
function my.read_on(line, size)
  local ids, scores, rows = line.ids, line.scores, line.rows
  local first, wanted = #ids + 1, #ids + size
  while #ids < wanted do
    local row = rows[line.row] or my.read_rows(line, wanted - #ids)
    if not row then break end
    local text, from, known = row.text, row.from, #ids
    row.first = row.first or known + 1
    local ahead = row.score - row.first
    repeat
      local to = text:find('\0', from, true)
      known = known + 1
      ids[known], scores[known], from = sub(text, from, to - 1), ahead + known, to + 1
    until from > #text or known == wanted
    row.from = from
    if from > #text then line.row = line.row + 1 end
  end
  if not ids[first] then return end
  local bodies = line.bodies
  for at, body in ipairs(my.many_of('HMGET', 'jobs', { unpack(ids, first) })) do bodies[first + at - 1] = body end
end

-- Read the next rows of a line, as many as so many jobs are likely to stand in; gives the first.
function my.read_rows(line, size)
  local rows, known = line.rows, #line.rows
  local in_each = known > 0 and #line.ids / known or my.IN_A_ROW
  local last = known + math.ceil(size / in_each)
  local found = call('ZRANGE', P .. 'line:' .. line.name, known, last, 'WITHSCORES')
  for at = 1, #found, 2 do rows[#rows + 1] = { text = found[at], score = tonumber(found[at + 1]), from = 1 } end
  return rows[known + 1]
end

-- Take out of a line what was taken from its head.
function my.leave_head(line)
  local taken, rows = line.at - 1, line.rows
  if taken == 0 then return end
  local count = 1
  while rows[count + 1] and rows[count + 1].first and rows[count + 1].first <= taken do count = count + 1 end
  call('ZREMRANGEBYRANK', P .. 'line:' .. line.name, 0, count - 1)
  local last, bytes = rows[count], 0
  for at = last.first, taken do bytes = bytes + #line.ids[at] + 1 end
  if bytes < #last.text then
    call('ZADD', P .. 'line:' .. line.name, my.text(line.scores[taken] + 1), sub(last.text, bytes + 1))
  end
  my.set_head(line.name, line.member)
end

-- A heap of lines by the score of their heads.
function my.sift(heap, at)
  while true do
    local least, left = at, 2 * at
    if heap[left] and heap[left].score < heap[least].score then least = left end
    if heap[left + 1] and heap[left + 1].score < heap[least].score then least = left + 1 end
    if least == at then return end
    heap[at], heap[least] = heap[least], heap[at]
    at = least
  end
end

function my.drop_top(heap)
  heap[1] = heap[#heap]
  heap[#heap] = nil
  if heap[1] then my.sift(heap, 1) end
end

-- Pick from the one line that there is.
function my.pick_from(line, free, limit, picked)
  local most = math.min(limit - #picked.ids, free[line.runner] or 0)
  while most > 0 and #picked.overdue < 1000 do
    my.read_on(line, most)
    if not line.ids[line.at] then break end
    local take_head = my.take_head
    for _ = line.at, #line.ids do
      if not take_head(line, picked, free) then return end
    end
    most = math.min(limit - #picked.ids, free[line.runner])
  end
end

-- Put the job at the head of a line among those to claim, or among the overdue. Once one was overdue only others that are
-- leave their lines, and nothing is done about the rest: what stands behind them may have to wait for the head of a line
-- that was not gathered. Says whether the job was taken.
function my.take_head(line, picked, free)
  local at, size = line.at, #picked.ids + 1
  local id, body = line.ids[at], line.bodies[at]
  if byte(body, 25) % 2 == my.HAS_EXPIRY then
    local expiry = call('ZSCORE', P .. 'expiry', id)
    if expiry and tonumber(expiry) <= now then
      picked.overdue[#picked.overdue + 1] = { id, body }
      line.at, picked.met_overdue = at + 1, true
      return true
    end
    picked.expiring[size] = expiry
  end
  if picked.met_overdue then return false end
  line.at = at + 1
  free[line.runner] = free[line.runner] - 1
  picked.ids[size], picked.bodies[size] = id, body
  return true
end

-- Merge lines up to a limit in all, best head first, while their runners have room; overdue ones take none.
function my.merge(lines, free, limit, picked)
  local heap, left = {}, limit - #picked.ids
  local share = math.min(left, math.max(8, math.ceil(2 * left / #lines)))
  for _, line in ipairs(lines) do
    if (free[line.runner] or 0) > 0 then
      my.read_on(line, math.min(share, free[line.runner]))
      line.score = line.scores[1]
      if line.score then heap[#heap + 1] = line end
    end
  end
  for at = floor(#heap / 2), 1, -1 do my.sift(heap, at) end
  while heap[1] and #picked.ids < limit and #picked.overdue < 1000 do
    local line = heap[1]
    if free[line.runner] <= 0 or not my.take_head(line, picked, free) then
      my.drop_top(heap)
    else
      if not line.scores[line.at] and #picked.ids < limit then my.read_on(line, share) end
      line.score = line.scores[line.at]
      if not line.score then my.drop_top(heap) elseif heap[2] then my.sift(heap, 1) end
    end
  end
end

-- Pick jobs from lines up to a limit in all, and take them out of their lines.
function my.pick(lines, free, limit, picked)
  if lines[2] then my.merge(lines, free, limit, picked) else my.pick_from(lines[1], free, limit, picked) end
  for _, line in ipairs(lines) do my.leave_head(line) end
end

-- Give the names of the lanes that a group wants, or nothing if it is better to go through the lines that there are.
function my.names_of(want, queues)
  local names, most = {}, call('ZCARD', P .. 'lines') / 4
  for queue in pairs(queues) do
    for task in pairs(want.tasks) do
      if #names >= most then return nil end
      names[#names + 1] = queue .. '\0' .. task
    end
  end
  return names
end

-- Give what stands in `lines` for lanes, best head first.
function my.members_of(names)
  local members, found = {}, {}
  for at, lane in ipairs(my.many_of('HMGET', 'lane_of', names)) do
    if lane then
      members[#members + 1] = lane .. '\0' .. names[at]
      members[#members + 1] = lane .. 'a\0' .. names[at]
    end
  end
  for at, score in ipairs(my.many_of('ZMSCORE', 'lines', members)) do
    if score then found[#found + 1] = { tonumber(score), members[at] } end
  end
  table.sort(found, function(one, other) return one[1] < other[1] end)
  for at, one in ipairs(found) do found[at] = one[2] end
  return found
end

-- How many jobs can be taken, by what is asked for and by the runners that there are jobs for.
function my.room(want, limit)
  local sum, seen = 0, {}
  if my.has_some('alone') then seen.process, sum = true, want.free.process or 0 end
  for _, runner in pairs(want.tasks) do
    if not seen[runner] then seen[runner], sum = true, sum + (want.free[runner] or 0) end
  end
  return math.min(sum, limit)
end

my.paused = {}
function my.is_paused(queue)
  if not my.has_some('paused') then return false end
  if my.paused[queue] == nil then my.paused[queue] = call('SISMEMBER', P .. 'paused', queue) == 1 end
  return my.paused[queue]
end

-- Gather, from what stands in `lines`, the lines that a process could take from; says whether they are enough.
function my.gather(lines, members, want, queues)
  for _, member in ipairs(members) do
    local name, queue, task = member:match('^([^%z]+)%z([^%z]*)%z(.*)$')
    local runner = want.tasks[task]
    if runner and byte(name, -1) == 97 then runner = 'process' end
    local left = runner and (want.free[runner] or 0) - (lines.used[runner] or 0) or 0
    if left > 0 and (not queues or queues[queue]) then
      if my.is_paused(queue) then
        lines.paused[#lines.paused + 1] = member
      else
        local line = { name = name, member = member, runner = runner, rows = {}, row = 1, ids = {}, scores = {} }
        line.bodies, line.at = {}, 1
        lines[#lines + 1] = line
        lines.used[runner] = (lines.used[runner] or 0) + 1
        if #lines >= lines.room then return true end
      end
    end
  end
  return false
end

-- Give the lines of a group to take from. Each gives a job at least, so that no more of them are needed than there is
-- room for jobs; those with the best heads give the best jobs.
function my.best_lines(want, queues, limit)
  local lines, from, size = { used = {}, paused = {}, room = my.room(want, limit) }, 0, 16
  if lines.room <= 0 then return lines end
  local names = queues and my.names_of(want, queues)
  if names then
    my.gather(lines, my.members_of(names), want, queues)
    return lines
  end
  while true do
    local members = call('ZRANGE', P .. 'lines', from, from + size - 1)
    if my.gather(lines, members, want, queues) or #members < size then return lines end
    from, size = from + size, 2 * size
  end
end

-- Take lines of paused queues out of `lines`, so that the next claim need not pass over them.
function my.put_aside(members)
  local some = { unpack(members, 1, math.min(#members, 1000)) }
  if not some[1] then return end
  my.many('SADD', 'aside', some)
  my.many('ZREM', 'lines', some)
end

-- Pick jobs of a group of queues, or of all. Overdue ones take no room: where there were any, others are looked for.
function my.pick_group(want, queues, picked)
  local overdue
  repeat
    overdue, picked.met_overdue = #picked.overdue, false
    local lines = my.best_lines(want, queues, want.limit - #picked.ids)
    my.put_aside(lines.paused)
    if lines[1] then my.pick(lines, want.free, want.limit, picked) end
  until #picked.overdue == overdue or #picked.overdue >= 1000
end

-- Put picked jobs under new claims of a process; gives their fences.
function my.hold_all(picked, process, name, beat, seed)
  local ids, bodies, expiring, fences, records = picked.ids, picked.bodies, picked.expiring, {}, {}
  local mores, front, first = my.seldom('more', ids), struct.pack('>I4i8', process, beat), my.attempt(1, now, name)
  local pack, new_fence, infos, size = struct.pack, my.new_fence, my.infos, 0
  for at, id in ipairs(ids) do
    local last, number, kind, more = first, 1, sub(bodies[at], 17, 25), mores[at]
    if more then
      number = struct.unpack('>i8', more) + 1
      last = my.attempt(number, now, name)
    end
    local fence, info = new_fence(seed, number), infos[kind] or my.info(kind)
    fences[at] = fence
    records[size + 1], records[size + 2] = id, front .. pack('>I4BB', at, 0, #fence) .. fence .. kind .. last
    size = size + 2
    info.started = (info.started or 0) + 1
    if info.is_unique then my.free(bodies[at], byte(kind, 9), id, true) end
    if expiring[at] then call('ZREM', P .. 'expiry', id) end
  end
  for _, info in pairs(infos) do
    local by = info.started or 0
    my.count(info.lane, my.READY, -by)
    my.count(info.lane, my.RUNNING, by)
  end
  my.many('HSET', 'claims', records)
  my.many('SADD', 'held:' .. process, ids)
  if my.has_some('since') then my.many('HDEL', 'since', ids) end
  return fences
end

-- Claim what can run; gives what `tell` tells, and whether it stopped at the bound on overdue jobs.
function my.claim_jobs(want, process, name, beat, seed)
  local picked = { ids = {}, bodies = {}, expiring = {}, overdue = {} }
  for _, group in ipairs(want.queues or { false }) do
    local queues = group and {} or nil
    for _, queue in ipairs(group or {}) do queues[queue] = true end
    my.pick_group(want, queues, picked)
  end
  for _, job in ipairs(picked.overdue) do my.end_waiting(job[1], job[2], my.EXPIRED) end
  my.write_ends()
  local has_more = #picked.overdue >= 1000
  if #picked.ids == 0 then return {}, has_more end
  local fences = my.hold_all(picked, process, name, beat, seed)
  return my.tell(picked.ids, fences, picked.bodies), has_more
end

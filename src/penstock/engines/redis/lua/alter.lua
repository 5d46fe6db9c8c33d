-- Apply what was decided on jobs, each only if it still is what the decision was made on.
--
-- before: a job whose stored form has the given digest -> after: as the decision says.
-- ARGV: clock, how many errors a history keeps; for each job id, digest, and one of
--   stop                                        ask a running job to stop
--   delete                                      forget it
--   end, state, error or empty                  a waiting job ends
--   wait, due                                   a waiting job is scheduled
--   stay, body, queue, task                     a waiting job is changed; it keeps its place unless lane or priority change
--   back, body, queue, task, more or empty, history or empty, due or empty     a job begins anew, now or then
-- Answers for each `ok`, `stale`, or the id of the job that holds the key which this one would hold again.
-- include common
-- include ends
-- include claims
-- include seeing

local kept, answers = tonumber(my.take()), {}

local function digest_of(seen)
  local parts = {}
  for at = 2, 9 do parts[at - 1] = seen[at] == false and '' or tostring(seen[at]) end
  return redis.sha1hex(table.concat(parts, '\0'))
end

local function with_lane(body, queue, task)
  return body:sub(1, 16) .. struct.pack('>I4', my.lane_of(queue, task)) .. body:sub(21)
end

local function set_expiry(id, body)
  local expiry = my.expiry_of(body, body:byte(25))
  if expiry then call('ZADD', P .. 'expiry', my.text(expiry), id) else call('ZREM', P .. 'expiry', id) end
end

local function come_back(id, body, was_final, due)
  local lane, _, _, _, flags, priority = my.head(body)
  call('HSET', P .. 'jobs', id, body)
  local key, kind = my.unique_of(body, flags)
  if was_final and kind == 'e' then my.hold(key, kind, 0, id) end
  call('SREM', P .. 'cancel', id)
  call('SREM', P .. 'alone', id)
  set_expiry(id, body)
  if due == '' then
    my.stand_again(lane, false, priority, id)
    my.count(lane, my.READY, 1)
  else
    call('ZADD', P .. 'scheduled', due, id)
    my.count(lane, my.SCHEDULED, 1)
    my.scheduled = my.scheduled + 1
  end
end

-- Take an ended job out of what is kept of ends.
local function revive(id, body, ended)
  local info, state = my.info_of(body), ended:byte(1)
  my.count(info.lane, state, -1)
  call('HDEL', P .. 'ended', id)
  if state == my.BURIED then
    my.unbury(id)
  else
    my.leave_done(info, ended, id)
    call('HINCRBY', P .. 'kept', info.queue, -1)
  end
end

local function bring_back(id, seen, body, queue, task, more, history, due)
  local old, ended = seen[2], seen[5]
  local key, kind = my.unique_of(old, old:byte(25))
  local holder = ended and kind == 'e' and my.holder_of(key)
  if holder and holder ~= id then return holder end
  body = with_lane(body, queue, task)
  if ended then revive(id, old, ended) else my.leave(id, old) end
  if more ~= '' then call('HSET', P .. 'more', id, more) else call('HDEL', P .. 'more', id) end
  if history ~= '' then call('HSET', P .. 'history', id, history) end
  come_back(id, body, ended, due)
  return 'ok'
end

local function stay(id, seen, body)
  local old = seen[2]
  local lane, _, _, _, _, priority = my.head(body)
  local old_lane, _, _, _, _, old_priority = my.head(old)
  call('HSET', P .. 'jobs', id, body)
  if lane == old_lane and priority == old_priority then return end
  if seen[4] then
    my.count(old_lane, my.SCHEDULED, -1)
    my.count(lane, my.SCHEDULED, 1)
    return
  end
  my.leave_line(old, id)
  my.count(old_lane, my.READY, -1)
  my.stand_again(lane, my.is_alone(id), priority, id)
  my.count(lane, my.READY, 1)
end

local function reschedule(id, body, due)
  local lane = my.head(body)
  local expiry = call('ZSCORE', P .. 'expiry', id)
  my.leave(id, body)
  if expiry then call('ZADD', P .. 'expiry', expiry, id) end
  call('ZADD', P .. 'scheduled', due, id)
  my.count(lane, my.SCHEDULED, 1)
  my.scheduled = my.scheduled + 1
end

local function stop(id, record)
  call('SADD', P .. 'cancel', id)
  my.steered[#my.steered + 1] = 'process'
  my.steered[#my.steered + 1] = select(3, my.attempt_of(record, select(6, my.claim_of(record))))
end

local function read()
  local kind = my.take()
  local sizes = { stop = 0, delete = 0, ['end'] = 2, wait = 1, stay = 3, back = 6 }
  local values = {}
  for at = 1, sizes[kind] do values[at] = my.take() end
  return kind, values
end

local function apply(id, seen, kind, values)
  if kind == 'stop' then stop(id, seen[3])
  elseif kind == 'delete' then my.forget({ id })
  elseif kind == 'end' then
    if values[2] ~= '' then my.add_error(id, values[2], kept) end
    my.end_waiting(id, seen[2], tonumber(values[1]))
    my.write_ends()
  elseif kind == 'wait' then reschedule(id, seen[2], values[1])
  elseif kind == 'stay' then stay(id, seen, with_lane(values[1], values[2], values[3]))
  else return bring_back(id, seen, unpack(values))
  end
  return 'ok'
end

while my.cursor < #ARGV do
  local id, digest = my.take(), my.take()
  local kind, values = read()
  local seen = my.see({ id })
  if digest_of(seen) ~= digest then
    answers[#answers + 1] = 'stale'
  else
    answers[#answers + 1] = apply(id, seen, kind, values)
    my.write_lines()
  end
end
if #my.steered > 64 then my.steered = { 'process', '*' } end
my.close()
return answers

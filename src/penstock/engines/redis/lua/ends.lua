-- How jobs end and are forgotten.
-- include keys
-- include listing

my.NOTHING = struct.pack('>i8i8I2i8I2', 0, 0, 0, 0, 0)

function my.add_error(id, error, kept)
  local raw = call('HGET', P .. 'history', id)
  local list = raw and cmsgpack.unpack(raw) or { 0 }
  list[1] = 0
  list[#list + 1] = { now, error }
  while #list > kept + 1 do table.remove(list, 2) end
  call('HSET', P .. 'history', id, cmsgpack.pack(list))
end

-- Jobs that have ended, in groups of those that have kind, state and time in common.
my.ends, my.ended_groups = {}, {}

function my.group_of(info, state, at)
  local group = info.groups[state]
  if not group or group.at ~= at then
    group = { info = info, state = state, at = at, front = struct.pack('>Bi8', state, at), ids = {} }
    my.ended_groups[#my.ended_groups + 1] = group
    info.groups[state] = group
  end
  return group
end

-- Note that a job has ended; `write_ends` writes it down. The record lacks its first two fields.
function my.finish(id, info, state, at, record)
  local group, ends = my.group_of(info, state, at), my.ends
  local ids, size = group.ids, #ends
  ids[#ids + 1] = id
  ends[size + 1], ends[size + 2] = id, group.front .. record
end

-- The group of buried jobs stands in the error that buried it. A quote in the text of an error has a backslash before it.
function my.join_group(id, at)
  local raw = call('HGET', P .. 'history', id)
  local list = raw and cmsgpack.unpack(raw) or { 1 }
  local group = list[1] == 0 and list[2] and list[#list][2]:match('[,{]"group":"([^"]+)"')
  if not group then return end
  call('HSET', P .. 'grouped', id, group)
  call('SADD', P .. 'groups', group)
  call('ZADD', P .. 'group:' .. group, at, id)
end

-- Take a job out of those that are buried.
function my.unbury(id)
  call('ZREM', P .. 'buried', id)
  local group = call('HGET', P .. 'grouped', id)
  if not group then return end
  call('HDEL', P .. 'grouped', id)
  call('ZREM', P .. 'group:' .. group, id)
  if call('EXISTS', P .. 'group:' .. group) == 0 then call('SREM', P .. 'groups', group) end
end

function my.write_group(group, loaded)
  local info, ids, at, places = group.info, group.ids, my.text(group.at), {}
  if group.state == my.BURIED then
    for place, id in ipairs(ids) do places[2 * place - 1], places[2 * place] = at, id end
    my.many('ZADD', 'buried', places)
    for _, id in ipairs(ids) do my.join_group(id, at) end
  else
    for from = 1, #ids, my.IN_A_ROW do
      places[#places + 1] = at
      places[#places + 1] = table.concat(ids, '\0', from, math.min(from + my.IN_A_ROW - 1, #ids)) .. '\0'
    end
    my.many('ZADD', 'done:' .. info.place, places)
    call('ZADD', P .. 'forget', 'LT', my.text(group.at + info.keep), info.place)
    call('HINCRBY', P .. 'kept', info.queue, #ids)
  end
  my.count(info.lane, group.state, #ids)
  if not loaded then call('HINCRBY', P .. 'finished', info.queue, #ids) end
  for _, id in ipairs(ids) do my.finished_ids[#my.finished_ids + 1] = id end
end

function my.write_ends(loaded)
  if #my.ends == 0 then return end
  my.many('HSET', 'ended', my.ends)
  for _, group in ipairs(my.ended_groups) do
    my.write_group(group, loaded)
    group.info.groups[group.state] = nil
  end
  my.ends, my.ended_groups = {}, {}
end

-- Take an ended job that is not buried out of where it waits to be forgotten.
function my.leave_done(info, ended, id)
  local at = my.text(struct.unpack('>i8', ended, 2))
  my.leave_row('done:' .. info.place, at, at, id)
end

-- Take a waiting job out of where it stands.
function my.leave(id, body)
  local lane = my.info_of(body).lane
  if call('ZREM', P .. 'scheduled', id) == 1 then
    my.count(lane, my.SCHEDULED, -1)
  else
    my.leave_line(body, id)
    my.count(lane, my.READY, -1)
  end
  call('ZREM', P .. 'expiry', id)
end

function my.end_waiting(id, body, state)
  my.leave(id, body)
  call('SREM', P .. 'cancel', id)
  call('SREM', P .. 'alone', id)
  local more = call('HGET', P .. 'more', id)
  if more then call('HDEL', P .. 'more', id) end
  my.free(body, byte(body, 25), id, false)
  my.finish(id, my.info_of(body), state, now, (more or my.NOTHING) .. '\0\0\0')
end

-- Free what a job that is forgotten holds by its keys and in the ledger.
function my.let_go(id, body, flags)
  local key = my.idempotency_key_of(body, flags)
  if key and call('HGET', P .. 'idem', key) == id then call('HDEL', P .. 'idem', key) end
  if not my.has_some('ledger') then return end
  for _, entry in ipairs(call('SMEMBERS', P .. 'ledger_of:' .. id)) do
    local raw = call('HGET', P .. 'ledger', entry)
    if raw then
      local known = cmsgpack.unpack(raw)
      if known[1] == id and known[3] == '' then call('HDEL', P .. 'ledger', entry) end
    end
  end
end

-- Forget jobs that do not run, with all that lives as long as they do; `are_out` if they wait for that no more.
function my.forget(ids, are_out)
  local bodies, keys, fewer = my.many_of('HMGET', 'jobs', ids), {}, {}
  for at, id in ipairs(ids) do
    local body, ended = bodies[at], call('HGET', P .. 'ended', id)
    local info, flags = my.info_of(body), byte(body, 25)
    my.count_policy(info.policy, -1)
    if ended then
      local state = byte(ended, 1)
      my.count(info.lane, state, -1)
      if state == my.BURIED then
        my.unbury(id)
      else
        if not are_out then my.leave_done(info, ended, id) end
        fewer[info.queue] = (fewer[info.queue] or 0) - 1
      end
    else
      my.leave(id, body)
      my.free(body, flags, id, false)
      call('SREM', P .. 'cancel', id)
      call('SREM', P .. 'alone', id)
      call('HDEL', P .. 'more', id)
    end
    my.let_go(id, body, flags)
    keys[2 * at - 1], keys[2 * at] = P .. 'log:' .. id, P .. 'ledger_of:' .. id
  end
  for queue, by in pairs(fewer) do call('HINCRBY', P .. 'kept', queue, by) end
  for _, name in ipairs({ 'jobs', 'ended', 'history', 'progress' }) do my.many('HDEL', name, ids) end
  for from = 1, #keys, my.AT_ONCE do call('DEL', unpack(keys, from, math.min(from + my.AT_ONCE - 1, #keys))) end
  my.unlist(ids)
end

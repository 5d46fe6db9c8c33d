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

my.ends, my.ended_places, my.fronts = {}, {}, {}
-- Note that a job has ended; `write_ends` writes it down. The record lacks its first two fields.
function my.finish(id, body, state, at, record)
  local info, flags = my.info_of(body), byte(body, 17)
  local name = state == my.BURIED and info.lane or info.place
  local place = my.ended_places[name]
  if not place then
    place = { info = info, first = at, buried = state == my.BURIED }
    my.ended_places[name] = place
  end
  local size = #place
  place[size + 1], place[size + 2] = at, id
  if at < place.first then place.first = at end
  local front = at == now and my.fronts[state]
  if not front then
    front = struct.pack('>Bi8', state, at)
    if at == now then my.fronts[state] = front end
  end
  size = #my.ends
  my.ends[size + 1], my.ends[size + 2] = id, front .. record
  my.count(info.lane, state, 1)
  if my.has(flags, my.HAS_UNIQUE) then my.free(body, flags, id, false) end
  my.finished_ids[#my.finished_ids + 1] = id
end

function my.write_ends(loaded)
  if #my.ends == 0 then return end
  my.many('HSET', 'ended', my.ends)
  for name, place in pairs(my.ended_places) do
    local info, size = place.info, #place / 2
    if place.buried then
      my.many('ZADD', 'buried', place)
    else
      my.many('ZADD', 'done:' .. name, place)
      call('ZADD', P .. 'forget', 'LT', place.first + info.keep, name)
      call('HINCRBY', P .. 'kept', info.queue, size)
    end
    if not loaded then call('HINCRBY', P .. 'finished', info.queue, size) end
  end
  my.ends, my.ended_places = {}, {}
end

-- Take a waiting job out of where it stands.
function my.leave(id, body)
  local lane = my.info_of(body).lane
  if call('ZREM', P .. 'scheduled', id) == 1 then
    my.count(lane, my.SCHEDULED, -1)
  else
    my.leave_line(lane, id)
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
  my.finish(id, body, state, now, (more or my.NOTHING) .. '\0\0\0')
end

-- Forget jobs that do not run, with all that lives as long as they do.
function my.forget(ids)
  for _, id in ipairs(ids) do
    local body = call('HGET', P .. 'jobs', id)
    local ended = call('HGET', P .. 'ended', id)
    local info, flags = my.info_of(body), body:byte(17)
    my.count_policy(info.policy, -1)
    if ended then
      local state = ended:byte(1)
      my.count(info.lane, state, -1)
      if state == my.BURIED then
        call('ZREM', P .. 'buried', id)
      else
        call('ZREM', P .. 'done:' .. info.place, id)
        call('HINCRBY', P .. 'kept', info.queue, -1)
      end
    else
      my.leave(id, body)
      my.free(body, flags, id, false)
      call('SREM', P .. 'cancel', id)
      call('SREM', P .. 'alone', id)
      call('HDEL', P .. 'more', id)
    end
    local key = my.idempotency_key_of(body, flags)
    if key and call('HGET', P .. 'idem', key) == id then call('HDEL', P .. 'idem', key) end
    for _, entry in ipairs(call('SMEMBERS', P .. 'ledger_of:' .. id)) do
      local raw = call('HGET', P .. 'ledger', entry)
      if raw then
        local known = cmsgpack.unpack(raw)
        if known[1] == id and known[3] == '' then call('HDEL', P .. 'ledger', entry) end
      end
    end
    call('DEL', P .. 'log:' .. id, P .. 'ledger_of:' .. id)
  end
  for _, name in ipairs({ 'jobs', 'ended', 'history', 'progress' }) do my.many('HDEL', name, ids) end
  my.unlist(ids)
end

-- How changes are applied.
-- include adding
-- include claims

-- Give a body with what a move changes of it. A job that goes on at another stage has started, so its deadline is over.
function my.moved(body, move)
  local created, seq, _, policy, flags, priority, length = struct.unpack('>i8i8I4I4BbI4', body)
  local parts, from = my.parts_of(body, flags)
  local stage = my.has(flags, my.HAS_STAGE) and struct.unpack('>I4', body, parts.stage) or 0
  local expiry, details, number = '', '', ''
  for _, flag in ipairs({ my.HAS_EXPIRY, my.HAS_DETAILS, my.HAS_STAGE }) do
    if my.has(flags, flag) then flags = flags - flag end
  end
  if parts.keys > 31 and stage == move.stage then
    flags, expiry = flags + my.HAS_EXPIRY, sub(body, 31, 38)
  end
  if move.details ~= '' then
    flags, details = flags + my.HAS_DETAILS, struct.pack('>I4', #move.details) .. move.details
  end
  if move.stage > 0 then flags, number = flags + my.HAS_STAGE, struct.pack('>I4', move.stage) end
  local head = struct.pack('>i8i8I4I4BbI4', created, seq, my.lane_of(move.queue, move.task), policy, flags, priority, length)
  return head .. expiry .. sub(body, parts.keys, parts.details - 1) .. details .. number .. sub(body, from)
end

-- Bring a job back: ready at the end of its line, or scheduled.
function my.requeue(change, body, front)
  if change.move then
    body = my.moved(body, change.move)
    call('HSET', P .. 'jobs', change.id, body)
  end
  local id, lane, _, _, _, flags, priority = change.id, my.head(body)
  call('HSET', P .. 'more', id, front .. change.tail)
  my.some = {}
  call(change.alone and 'SADD' or 'SREM', P .. 'alone', id)
  local expiry = my.expiry_of(body, flags)
  if expiry and not change.charged then call('ZADD', P .. 'expiry', my.text(expiry), id) end
  if change.next == my.SCHEDULED then
    call('ZADD', P .. 'scheduled', my.text(now + change.after), id)
    my.scheduled = my.scheduled + 1
  else
    my.stand_again(lane, change.alone, priority, id)
  end
  my.count(lane, change.next, 1)
end

-- Write down what a change says, under a claim whose fence was compared.
function my.apply(change, info, front, kept)
  local id = change.id
  if change.error then my.add_error(id, change.error, kept) end
  if change.next >= my.SUCCEEDED then
    if info.is_unique then
      local body = call('HGET', P .. 'jobs', id)
      my.free(body, byte(body, 25), id, false)
    end
    my.finish(id, info, change.next, now, front .. change.tail)
  else
    my.requeue(change, call('HGET', P .. 'jobs', id), front)
  end
  if not change.ledger then return end
  for _, entry in ipairs(change.ledger) do
    call('HSET', P .. 'ledger', entry[1], cmsgpack.pack({ id, change.fence, '', '1' .. entry[2] }))
    call('SADD', P .. 'ledger_of:' .. id, entry[1])
    call('ZREM', P .. 'ledger_until', entry[1])
  end
end

-- Read as many changes as there are; `x` marks one that says more than how an attempt ended. Gives also of how many jobs
-- they are.
function my.read_changes()
  local size, jobs = tonumber(my.take()), tonumber(my.take())
  local changes, cursor, states = {}, my.cursor, { ['4'] = 4, ['5'] = 5, ['6'] = 6, ['7'] = 7 }
  for at = 1, size do
    local change, kind = { id = ARGV[cursor + 1], fence = ARGV[cursor + 2], tail = ARGV[cursor + 3] }, ARGV[cursor + 4]
    change.next = states[kind]
    cursor = cursor + 4
    if kind == 'x' then
      my.cursor = cursor
      my.read_more(change)
      cursor = my.cursor
    end
    changes[at] = change
  end
  my.cursor = cursor
  return changes, jobs
end

function my.read_more(change)
  change.next, change.after = tonumber(my.take()), tonumber(my.take())
  change.charged, change.alone = my.take() == '1', my.take() == '1'
  change.error = my.take()
  if change.error == '' then change.error = nil end
  local queue = my.take()
  if queue ~= '' then
    change.move = { queue = queue, task = my.take(), stage = tonumber(my.take()), details = my.take() }
  end
  change.ledger = {}
  for at = 1, tonumber(my.take()) do change.ledger[at] = { my.take(), my.take() } end
  change.follow_ups = my.read_jobs(tonumber(my.take()))
end

function my.add_follow_ups(changes, kept)
  local added = false
  for _, change in ipairs(changes) do
    if change.follow_ups then
      for _, job in ipairs(change.follow_ups) do
        my.add_request({ job }, kept, false)
        added = true
      end
    end
  end
  if added then my.write_jobs() end
end

-- Apply the changes whose fence is valid, and give the ids of the others. All fences are compared before anything is
-- written.
function my.apply_changes(changes, jobs, kept)
  if #changes == 0 then return {} end
  local ids, dropped, finished, held, late, valid = {}, {}, {}, {}, {}, {}
  local done = jobs < #changes and {}
  for at, change in ipairs(changes) do ids[at] = change.id end
  local records, size, infos, apply = my.many_of('HMGET', 'claims', ids), 0, my.infos, my.apply
  for at, change in ipairs(changes) do
    local id, record = change.id, records[at]
    local over = record and 18 + byte(record, 18)
    if record and not (done and done[id]) and sub(record, 19, over) == change.fence then
      size = size + 1
      valid[size], dropped[size] = change, id
      if done then done[id] = true end
      if change.next >= my.SUCCEEDED then finished[#finished + 1] = id end
      local holder, kind = sub(record, 1, 4), sub(record, over + 1, over + 9)
      local own, info = held[holder], infos[kind] or my.info(kind)
      if not own then
        own = {}
        held[holder] = own
      end
      own[#own + 1] = id
      info.ended = (info.ended or 0) + 1
      apply(change, info, sub(record, over + 10), kept)
    else
      late[#late + 1] = id
    end
  end
  for _, info in pairs(infos) do
    if info.ended then my.count(info.lane, my.RUNNING, -info.ended) end
  end
  my.many('HDEL', 'claims', dropped)
  for holder, own in pairs(held) do my.many('SREM', 'held:' .. struct.unpack('>I4', holder), own) end
  for _, name in ipairs({ 'cancel', 'alone' }) do
    if my.has_some(name) then my.many('SREM', name, finished) end
  end
  if my.has_some('more') then my.many('HDEL', 'more', finished) end
  my.write_ends()
  my.write_lines()
  my.add_follow_ups(valid, kept)
  my.write_lines()
  if #late > 0 then call('HINCRBY', P .. 'meta', 'late', #late) end
  return late
end

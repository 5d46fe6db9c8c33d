-- How changes are applied.
-- include adding
-- include claims

-- Bring a job back: ready at the end of its line, or scheduled.
function my.requeue(change, body, front)
  local id, lane, _, _, flags, priority = change.id, my.head(body)
  call('HSET', P .. 'more', id, front .. change.tail)
  my.some = {}
  call(change.alone and 'SADD' or 'SREM', P .. 'alone', id)
  local expiry = my.expiry_of(body, flags)
  if expiry and not change.charged then call('ZADD', P .. 'expiry', my.text(expiry), id) end
  if change.next == my.SCHEDULED then
    call('ZADD', P .. 'scheduled', my.text(now + change.after), id)
    my.scheduled = my.scheduled + 1
  else
    my.stand(lane, change.alone, priority, id)
    call('HSET', P .. 'since', id, my.text(now))
  end
  my.count(lane, change.next, 1)
end

-- Write down what a change says, under a claim whose fence was compared.
function my.apply(change, body, record, kept)
  local front = sub(record, 19 + #change.fence)
  my.count(my.info_of(body).lane, my.RUNNING, -1)
  if change.error then my.add_error(change.id, change.error, kept) end
  if change.next >= my.SUCCEEDED then
    my.finish(change.id, body, change.next, now, front .. change.tail)
  else
    my.requeue(change, body, front)
  end
  if not change.ledger then return end
  for _, entry in ipairs(change.ledger) do
    call('HSET', P .. 'ledger', entry[1], cmsgpack.pack({ change.id, change.fence, '', '1' .. entry[2] }))
    call('SADD', P .. 'ledger_of:' .. change.id, entry[1])
    call('ZREM', P .. 'ledger_until', entry[1])
  end
end

function my.read_change()
  local change = { id = my.take(), fence = my.take(), tail = my.take() }
  local kind = my.take()
  if kind ~= 'x' then
    change.next = tonumber(kind)
    return change
  end
  change.next, change.after = tonumber(my.take()), tonumber(my.take())
  change.charged, change.alone = my.take() == '1', my.take() == '1'
  change.error = my.take()
  if change.error == '' then change.error = nil end
  change.ledger = {}
  for at = 1, tonumber(my.take()) do change.ledger[at] = { my.take(), my.take() } end
  change.follow_ups = my.read_jobs(tonumber(my.take()))
  return change
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
function my.apply_changes(changes, kept)
  if #changes == 0 then return {} end
  local ids, dropped, finished, held, late, done = {}, {}, {}, {}, {}, {}
  for at, change in ipairs(changes) do ids[at] = change.id end
  local records, bodies, valid = my.many_of('HMGET', 'claims', ids), my.many_of('HMGET', 'jobs', ids), {}
  for at, change in ipairs(changes) do
    local id, record = change.id, records[at]
    if record and not done[id] and my.has_fence(record, change.fence) then
      done[id] = true
      valid[#valid + 1] = change
      dropped[#dropped + 1] = id
      if change.next >= my.SUCCEEDED then finished[#finished + 1] = id end
      local holder = sub(record, 1, 4)
      local own = held[holder]
      if not own then
        own = {}
        held[holder] = own
      end
      own[#own + 1] = id
      my.apply(change, bodies[at], record, kept)
    else
      late[#late + 1] = id
    end
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

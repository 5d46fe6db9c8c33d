-- How claims pass from a void lease to a tender.
-- include claims
-- include telling

my.LOST = 3

-- What was seen of the claims of a process that died: tokens of those that had begun; nothing if nobody saw.
function my.begun_in(name)
  if not my.has_some('deaths') then return nil end
  local raw = call('HGET', P .. 'deaths', name)
  if not raw then return nil end
  local begun = {}
  for token in raw:gmatch('[^ ]+') do begun[token] = true end
  return begun
end

-- Take over what a void process holds, but not more claims than there is room for; gives the room that is left.
function my.take_all(name, record, tender, tender_name, room, seed)
  local begun = my.begun_in(name)
  for _, id in ipairs(call('SMEMBERS', P .. 'held:' .. record:match('^%d+'))) do
    if room <= 0 then return room end
    local fence = select(5, my.claim_of(call('HGET', P .. 'claims', id)))
    local fate = my.LOST
    if begun then fate = begun[fence:match('%.(.*)$')] and 1 or 2 end
    my.take_over(id, tender, tender_name, fate, seed)
    room = room - 1
  end
  return room
end

-- Take a claim over for a tender, under a new fence; what was seen of its fate before still holds.
my.FATES = { 'crashed', 'released', 'lost' }
my.taken_ids, my.taken_fences, my.taken_bodies, my.taken_fates = {}, {}, {}, {}
function my.take_over(id, tender, tender_name, fate, seed)
  local record = call('HGET', P .. 'claims', id)
  local process, _, _, seen, _, at = my.claim_of(record)
  local number, claimed, name = my.attempt_of(record, at)
  local fate_now = seen > 0 and seen or fate
  local fence = my.new_fence(seed, number + 1)
  local front = struct.pack('>I4i8I4BB', tender, 0, 0, fate_now, #fence)
  local rest = sub(record, at, at + 8) .. my.attempt(number + 1, claimed, tender_name)
  call('HSET', P .. 'claims', id, front .. fence .. rest)
  call('SREM', P .. 'held:' .. process, id)
  call('SADD', P .. 'held:' .. tender, id)
  local last = #my.taken_ids + 1
  my.taken_ids[last], my.taken_fences[last], my.taken_bodies[last] = id, fence, call('HGET', P .. 'jobs', id)
  my.taken_fates[2 * last - 1], my.taken_fates[2 * last] = my.FATES[fate_now], name
end

function my.tell_taken() return my.tell(my.taken_ids, my.taken_fences, my.taken_bodies) end

-- How claims pass from a void lease to a tender.
-- include claims
-- include telling

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
  call('HSET', P .. 'claims', id, front .. fence .. my.attempt(number + 1, claimed, tender_name))
  call('SREM', P .. 'held:' .. process, id)
  call('SADD', P .. 'held:' .. tender, id)
  local last = #my.taken_ids + 1
  my.taken_ids[last], my.taken_fences[last], my.taken_bodies[last] = id, fence, call('HGET', P .. 'jobs', id)
  my.taken_fates[2 * last - 1], my.taken_fates[2 * last] = my.FATES[fate_now], name
end

function my.tell_taken() return my.tell(my.taken_ids, my.taken_fences, my.taken_bodies) end

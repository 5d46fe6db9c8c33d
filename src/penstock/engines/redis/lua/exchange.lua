-- Deliver what has ended, then claim what can run.
--
-- before: changes' jobs in `claims` under their fences, ready jobs in lines -> after: jobs as their changes say; up to
-- `want` jobs in `claims` under new fences; `beats` has what the answer was, unless nothing was changed or claimed.
-- ARGV: clock, process, beat, what the last answer said is remembered, or empty, how many errors a history keeps,
-- random seed of the fences, how many changes, of how many jobs; for each id, fence, record from ran_us on, next state; or `x`,
-- next state, after_ms, whether an attempt was charged, whether it runs alone, error or empty, where it goes on (queue,
-- task, stage, details or empty; or empty alone: where it was), how many ledger entries,
-- each entry and value, runs of follow-ups (see adding.lua); last, MessagePack of what is wanted, or empty.
-- Answers: nothing without a live lease; {last beat} for an old beat; else {now, mark, steered, drain, late ids, fences
-- to cancel, lanes, policies, claims, `process number` and last beat that is remembered}.
-- A store that remembers less than the process knows went back in time: the process will not end what it has ended
-- already, so its lease is void.
-- A store that remembers more did what the process took for failed and then asked anew, as idle calls may be: the claims
-- since then are told now in place of new ones.
-- include common
-- include leases
-- include changing
-- include claiming

local name, beat, known_of, known = my.take(), tonumber(my.take()), my.take():match('^(%d+) (%d+)$')
local kept, seed = tonumber(my.take()), my.take()
local number, worker = my.process_of(name)
known = tonumber(known_of) == number and tonumber(known) or nil -- who enrolled anew under its name knows nothing
local changes, jobs = my.read_changes()
local want = my.take()
local raw = call('HGET', P .. 'beats', name)
local last = raw and cmsgpack.unpack(raw) or { 0, 0 }
if number and known and last[1] < known then
  my.void_lease(name)
  number = nil
end
if not number then
  if #changes > 0 then call('HINCRBY', P .. 'meta', 'late', #changes) end
  return false
end

local numbers = call('HMGET', P .. 'meta', 'seq', 'steered')
if beat < math.max(1, last[1]) then return { my.text(last[1]) } end

-- Tell the claims since a beat in the order in which they were made, and put them under this beat.
local function tell_since(first)
  local held, ids, fences = {}, {}, {}
  for _, id in ipairs(call('SMEMBERS', P .. 'held:' .. number)) do
    local record = call('HGET', P .. 'claims', id)
    local _, since, place, _, fence = my.claim_of(record)
    if since >= first then held[#held + 1] = { since, place, id, fence, record } end
  end
  table.sort(held, function(one, other)
    if one[1] ~= other[1] then return one[1] < other[1] end
    return one[2] < other[2]
  end)
  for at, one in ipairs(held) do
    ids[at], fences[at] = one[3], one[4]
    if one[1] ~= beat then
      call('HSET', P .. 'claims', one[3], struct.pack('>I4i8I4', number, beat, at) .. sub(one[5], 17))
    end
  end
  return my.tell(ids, fences, my.many_of('HMGET', 'jobs', ids))
end

local late, told, mark = {}, {}, nil
if beat == last[1] then
  told = tell_since(beat)
  mark = last[2]
  for at = 3, #last do late[#late + 1] = last[at] end
else
  late = my.apply_changes(changes, jobs, kept)
  local more = false
  if known and last[1] > known then told = tell_since(known + 1) end
  if #told > 0 then
    more = true
  elseif want ~= '' then
    told, more = my.claim_jobs(cmsgpack.unpack(want), number, name, beat, seed)
  end
  mark = (my.seq or tonumber(numbers[1] or 0)) - (more and 1 or 0)
  if #changes > 0 or #told > 0 then
    call('HSET', P .. 'beats', name, cmsgpack.pack({ beat, mark, unpack(late) }))
    last = { beat }
  end
  my.close()
end

local cancels = {}
if my.has_some('cancel') then
  for _, id in ipairs(call('SINTER', P .. 'cancel', P .. 'held:' .. number)) do
    cancels[#cancels + 1] = select(5, my.claim_of(call('HGET', P .. 'claims', id)))
  end
end
local drain = call('SISMEMBER', P .. 'draining', worker)
return { now, mark, numbers[2] or '0', drain, late, cancels, my.shown.lanes, my.shown.policies, told,
  number .. ' ' .. my.text(last[1]),
}

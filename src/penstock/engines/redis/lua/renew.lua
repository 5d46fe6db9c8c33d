-- Keep leases alive, and hand the claims of the dead to the tender.
--
-- before: tender enrolled -> after: its lease and the named ones that are not void run anew; the dead are void, and
-- what they held is under new fences of the tender, up to 1,000 claims; `deaths` has what was seen of the others.
-- ARGV: clock, tender, random seed of the fences, how many leases, each, how many dead, for each its process, how many
-- tokens of claims that had begun, each token as text.
-- Answers nothing if the tender has no lease, else {now, void, draining, fates and holders, lanes, policies, claims}.
-- include common
-- include leases
-- include taking

local tender, seed = my.take(), my.take()
local number, own = my.process_of(tender)
if not number then return false end
my.renew_lease(tender, own)
local leases, void, draining, room = {}, {}, {}, my.MOST_AT_ONCE
for at = 1, tonumber(my.take()) do leases[at] = my.take() end
for _ = 1, tonumber(my.take()) do
  local dead, begun = my.take(), {}
  for at = 1, tonumber(my.take()) do begun[at] = my.take() end
  my.void_lease(dead)
  local record = call('HGET', P .. 'void', dead)
  if record then
    call('HSET', P .. 'deaths', dead, table.concat(begun, ' '))
    my.some = {}
    room = my.take_all(dead, record, number, tender, room, seed)
  end
end
my.drop_empty_leases()
for _, name in ipairs(leases) do
  local known, worker = my.process_of(name)
  if known then
    my.renew_lease(name, worker)
    if call('SISMEMBER', P .. 'draining', worker) == 1 then draining[#draining + 1] = name end
  else
    void[#void + 1] = name
  end
end
local told = my.tell_taken()
return { now, void, draining, my.taken_fates, my.shown.lanes, my.shown.policies, told }

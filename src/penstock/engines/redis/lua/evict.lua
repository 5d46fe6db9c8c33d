-- Void the leases of workers.
--
-- before: workers with a lease -> after: their processes are void, and what they held waits for a tender. ARGV: clock,
-- workers. Answers those that were known.
-- include common
-- include leases

local known, wanted, present = {}, {}, {}
for at = 2, #ARGV do wanted[ARGV[at]] = true end
local processes = call('HGETALL', P .. 'processes')
for at = 1, #processes, 2 do
  local worker = processes[at + 1]:match('^%d+ (.*)$')
  if wanted[worker] then
    present[worker] = true
    my.void_lease(processes[at])
  end
end
for at = 2, #ARGV do
  if present[ARGV[at]] then known[#known + 1] = ARGV[at] end
end
if #known > 0 then
  my.drop_empty_leases()
  my.steered = { 'process', '*' }
end
my.close()
return known

-- Ask workers to finish what they have and end.
--
-- before: workers with a lease -> after: in `draining`. ARGV: clock, workers. Answers those that were known.
-- include common

local known, wanted = {}, {}
for at = 2, #ARGV do wanted[ARGV[at]] = true end
local processes, present = call('HGETALL', P .. 'processes'), {}
for at = 1, #processes, 2 do
  local worker = processes[at + 1]:match('^%d+ (.*)$')
  if wanted[worker] then
    present[worker] = true
    my.steered[#my.steered + 1] = 'process'
    my.steered[#my.steered + 1] = processes[at]
  end
end
for at = 2, #ARGV do
  if present[ARGV[at]] then
    known[#known + 1] = ARGV[at]
    call('SADD', P .. 'draining', ARGV[at])
  end
end
if #my.steered > 64 then my.steered = { 'process', '*' } end
my.close()
return known

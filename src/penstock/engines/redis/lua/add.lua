-- Store new jobs: each request whole or not at all, with an answer of its own.
--
-- before: ids unknown -> after: each job in `jobs`, the list of ids, and a line or `scheduled`; counted; its keys held.
-- ARGV: clock, how many errors a history keeps, how many requests; for each the parent's id and fence (both empty
-- without one), how many runs, and the runs (see adding.lua).
-- Answers for each request: how many were stored if all are new; {'=', {id of the job that was there or empty, ...}};
-- {'I', key, holder}, {'U', key, holder}, {'F', queue, bound, overflow, rate}, {'L', id} for a refusal.
-- This script, its short form and `load` are those that a full store refuses: all others help to drain it.
-- include common
-- include adding
-- include claims

local kept, requests, answers = tonumber(my.take()), {}, {}
for at = 1, tonumber(my.take()) do
  local parent, fence = my.take(), my.take()
  requests[at] = { parent = parent, fence = fence, jobs = my.read_jobs(tonumber(my.take())) }
end
my.read_bounds()
local all = {}
for _, request in ipairs(requests) do
  for _, job in ipairs(request.jobs) do all[#all + 1] = job end
end
my.know(all)
for at, request in ipairs(requests) do
  if request.parent ~= '' and not my.holds(request.parent, request.fence) then
    answers[at] = { 'L', request.parent }
  else
    answers[at] = my.add_request(request.jobs, kept, true)
  end
end
my.write_jobs()
my.close()
return answers

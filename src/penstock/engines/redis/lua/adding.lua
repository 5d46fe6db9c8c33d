-- How new jobs enter.
-- include ends
-- include listing
--
-- ARGV, job by job: id, body from its flags on; and unless the run is plain: when it is ready (empty, `ms` or `+ms`),
-- when it expires (the same), the window of its unique key in ms, what to do while that key is held, and the error of
-- a job that this one replaces. Jobs come in runs: queue, task, policy, keep_ms, how many, `1` if they are plain.

my.known, my.entering, my.entering_ids = {}, {}, {}

function my.read_jobs(runs)
  local jobs = {}
  for _ = 1, runs do
    local run = { queue = my.take(), task = my.take(), policy = my.take(), keep = my.take() }
    local size, plain = tonumber(my.take()), my.take() == '1'
    for _ = 1, size do
      local job = { id = my.take(), rest = my.take(), run = run }
      if not plain then
        job.ready, job.expiry, job.window, job.clash, job.error = my.take(), my.take(), tonumber(my.take()), my.take(), my.take()
      end
      jobs[#jobs + 1] = job
    end
  end
  return jobs
end

function my.know(jobs)
  local ids = {}
  for _, job in ipairs(jobs) do ids[#ids + 1] = job.id end
  for at, body in ipairs(my.many_of('HMGET', 'jobs', ids)) do my.known[ids[at]] = body end
end

function my.body_of(id)
  local body = my.known[id]
  if body == nil then
    body = call('HGET', P .. 'jobs', id)
    my.known[id] = body
  end
  return body
end

function my.time_of(spec)
  if spec == '' then return nil end
  if spec:byte(1) == 43 then return now + tonumber(spec:sub(2)) end
  return tonumber(spec)
end

-- Read a job that is not stored as if it were a body.
function my.draft(job) return struct.pack('>i8i8I4I4', 0, 0, 0, 0) .. job.rest end

function my.is_same(job, task, body)
  local _, _, _, _, flags, _, length = my.head(body)
  local _, _, _, _, own_flags, _, own_length = my.head(my.draft(job))
  local is_framed_alike = math.floor(flags / 64) == math.floor(own_flags / 64)
  return task == job.run.task and is_framed_alike and length == own_length
    and (length == 0 or body:sub(-length) == job.rest:sub(-length))
end

-- Give the task that a job was added for, also while a fallback has it.
function my.origin_of(body)
  local lane, _, _, _, flags = my.head(body)
  if my.has(flags, my.HAS_STAGE) then
    local parts = my.parts_of(body, flags)
    return cjson.decode(sub(body, parts.details + 4, parts.stage - 1)).home.task
  end
  return select(2, my.split(my.lane_name(lane)))
end

-- Find the job that was added before by the same id or idempotency key; or say why there is a conflict.
function my.find_known(plan, job)
  local holder, key = job.id, nil
  local planned, body = plan.ids[job.id], my.body_of(job.id)
  if not planned and not body then
    local own = my.draft(job)
    key = my.idempotency_key_of(own, own:byte(25))
    holder = key and (plan.keys[key] or call('HGET', P .. 'idem', key))
    if not holder then return nil end
    planned, body = plan.ids[holder], my.body_of(holder)
  end
  local task = planned and planned.run.task or my.origin_of(body)
  if my.is_same(job, task, planned and my.draft(planned) or body) then return holder end
  return nil, { 'I', key or job.id, holder }
end

function my.waits(plan, id)
  if plan.ids[id] then return true end
  return my.body_of(id) and call('HEXISTS', P .. 'claims', id) == 0 and call('HEXISTS', P .. 'ended', id) == 0
end

-- Find the holder that stands in for the job, or note the one that it replaces.
function my.find_holder(plan, job)
  local own = my.draft(job)
  local key = my.unique_of(own, own:byte(25))
  local holder = key and (plan.uniques[key] or my.holder_of(key))
  if not holder then return nil end
  if job.clash == 'refuse' then return nil, { 'U', key, holder } end
  if job.clash == 'replace' and my.waits(plan, holder) then
    plan.replaces[job.id] = holder
    return nil
  end
  return holder
end

function my.note_planned(plan, job)
  plan.new[#plan.new + 1] = job
  plan.ids[job.id] = job
  if job.ready then
    local own = my.draft(job)
    local key, unique = my.idempotency_key_of(own, own:byte(25)), my.unique_of(own, own:byte(25))
    if key then plan.keys[key] = job.id end
    if unique then plan.uniques[unique] = job.id end
  end
end

function my.plan_of(jobs)
  local plan = { answers = {}, new = {}, ids = {}, keys = {}, uniques = {}, replaces = {}, existing = false }
  for at, job in ipairs(jobs) do
    local holder, refusal = my.find_known(plan, job)
    if not holder and not refusal and job.ready then holder, refusal = my.find_holder(plan, job) end
    if refusal then return nil, refusal end
    plan.answers[at] = holder or ''
    if holder then plan.existing = true else my.note_planned(plan, job) end
  end
  return plan
end


function my.read_bounds()
  my.bounds = {}
  local found = call('HGETALL', P .. 'bounds')
  for at = 1, #found, 2 do my.bounds[found[at]] = tonumber(found[at + 1]) end
end


-- Count the unfinished jobs of a queue, those of this script included.
function my.unfinished(queue)
  if not my.stored_unfinished then
    my.stored_unfinished = {}
    local found = call('HGETALL', P .. 'counts')
    for at = 1, #found, 2 do
      local field = tonumber(found[at])
      if field % 10 <= my.RUNNING then
        local name = my.queue_of(math.floor(field / 10))
        my.stored_unfinished[name] = (my.stored_unfinished[name] or 0) + tonumber(found[at + 1])
      end
    end
  end
  local sum = my.stored_unfinished[queue] or 0
  for field, by in pairs(my.moves) do
    if field % 10 <= my.RUNNING and my.queue_of(math.floor(field / 10)) == queue then sum = sum + by end
  end
  return sum
end

function my.find_overflow(plan)
  if not next(my.bounds) then return nil end
  local more = {}
  for _, job in ipairs(plan.new) do more[job.run.queue] = (more[job.run.queue] or 0) + 1 end
  for _, id in pairs(plan.replaces) do
    local queue = plan.ids[id] and plan.ids[id].run.queue or my.queue_of((my.head(my.body_of(id))))
    if more[queue] then more[queue] = more[queue] - 1 end
  end
  for queue, by in pairs(more) do
    local overflow = my.bounds[queue] and my.unfinished(queue) + by - my.bounds[queue] or 0
    if overflow > 0 then
      local rate = (call('HGET', P .. 'rates', queue) or '0 0 0'):match('([^ ]+)$')
      return { 'F', queue, my.text(my.bounds[queue]), my.text(overflow), rate }
    end
  end
end

function my.write_jobs()
  my.many('HSET', 'jobs', my.entering)
  my.list(my.entering_ids)
  my.entering, my.entering_ids = {}, {}
end

function my.store(job)
  local run, rest, due = job.run, job.rest, nil
  if not run.front then
    run.lane = my.lane_of(run.queue, run.task)
    run.number = my.policy_of(run.policy, run.keep)
    run.front = struct.pack('>I4I4', run.lane, run.number)
  end
  my.count_policy(run.number, 1)
  if job.ready then
    due = my.time_of(job.ready)
    local expiry = my.time_of(job.expiry)
    if expiry then
      rest = rest:sub(1, 6) .. struct.pack('>i8', expiry) .. rest:sub(15)
      call('ZADD', P .. 'expiry', my.text(expiry), job.id)
    end
  end
  local seq, waits = 0, due and due > now
  if not waits then
    local priority = rest:byte(2)
    seq = my.stand(run.lane, false, priority > 127 and priority - 256 or priority, job.id)
  end
  local body = struct.pack('>i8i8', now, seq) .. run.front .. rest
  my.known[job.id] = body
  my.entering[#my.entering + 1] = job.id
  my.entering[#my.entering + 1] = body
  my.entering_ids[#my.entering_ids + 1] = job.id
  if waits then
    call('ZADD', P .. 'scheduled', my.text(due), job.id)
    my.scheduled = my.scheduled + 1
  end
  my.count(run.lane, waits and my.SCHEDULED or my.READY, 1)
  return body
end

function my.replace(id, error, kept)
  my.write_jobs()
  my.write_lines()
  my.add_error(id, error, kept)
  my.end_waiting(id, my.body_of(id), my.CANCELLED)
  my.write_ends()
end

function my.commit(plan, kept)
  for _, job in ipairs(plan.new) do
    if plan.replaces[job.id] then my.replace(plan.replaces[job.id], job.error, kept) end
    local body = my.store(job)
    if job.ready then
      local flags = body:byte(25)
      local key, kind = my.unique_of(body, flags)
      if key then my.hold(key, kind, kind == 'w' and now + job.window or 0, job.id) end
      local idempotency_key = my.idempotency_key_of(body, flags)
      if idempotency_key then call('HSET', P .. 'idem', idempotency_key, job.id) end
    end
  end
end

-- Store a request whole, or answer why nothing of it was stored.
function my.add_request(jobs, kept, bounded)
  local plan, refusal = my.plan_of(jobs)
  refusal = refusal or (bounded and my.find_overflow(plan) or nil)
  if refusal then return refusal end
  my.commit(plan, kept)
  if not plan.existing then return #jobs end
  return { '=', plan.answers }
end

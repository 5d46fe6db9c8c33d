-- Store jobs as another store had them, each whole or not at all.
--
-- before: ids unknown -> after: each job where its state puts it, with its keys.
-- ARGV: clock; for each job id, body from its flags on, queue, task, policy, keep_ms, created, state, due or empty,
-- `more` or empty, record of its end from the attempt on or empty, ended or empty, history or empty, progress or empty,
-- whether it was asked to stop, whether it runs alone, whether an attempt was charged, whether it may hold its unique
-- key, until when if that is a window.
-- Answers for each 1 if stored, 0 if known, {'U', key, holder} or {'I', key, holder}.
-- include common
-- include ends

local answers = {}

local function read()
  local job = { id = my.take(), rest = my.take(), queue = my.take(), task = my.take(), policy = my.take(), keep = my.take() }
  job.created, job.state, job.due, job.more = tonumber(my.take()), tonumber(my.take()), my.take(), my.take()
  job.record, job.ended, job.history, job.progress = my.take(), my.take(), my.take(), my.take()
  job.stopped, job.alone, job.charged = my.take() == '1', my.take() == '1', my.take() == '1'
  job.holds, job.over = my.take() == '1', tonumber(my.take())
  return job
end

-- Say what stands in the way of a job's keys, and whether it is to hold its unique key.
local function find_conflict(job, draft, flags)
  local key = my.unique_of(draft, flags)
  local holder = key and job.holds and my.holder_of(key)
  if holder == job.id then holder = nil end
  if holder and job.state <= my.READY then return { 'U', key, holder } end
  local idempotency_key = my.idempotency_key_of(draft, flags)
  local taken = idempotency_key and call('HGET', P .. 'idem', idempotency_key)
  if taken then return { 'I', idempotency_key, taken } end
  return nil, key and job.holds and not holder
end

local function place(job, lane, priority, body, flags)
  if job.state > my.RUNNING then
    my.finish(job.id, my.info_of(body), job.state, tonumber(job.ended), job.record)
    my.write_ends(true)
    return
  end
  my.count(lane, job.state, 1)
  if job.more ~= '' then call('HSET', P .. 'more', job.id, job.more) end
  if job.stopped then call('SADD', P .. 'cancel', job.id) end
  if job.alone then call('SADD', P .. 'alone', job.id) end
  local expiry = my.expiry_of(body, flags)
  if expiry and not job.charged then call('ZADD', P .. 'expiry', my.text(expiry), job.id) end
  if job.state == my.SCHEDULED then
    call('ZADD', P .. 'scheduled', job.due, job.id)
    my.scheduled = my.scheduled + 1
  else
    my.stand_again(lane, job.alone, priority, job.id)
  end
end

local function store(job)
  if call('HEXISTS', P .. 'jobs', job.id) == 1 then return 0 end
  local draft = struct.pack('>i8i8I4I4', job.created, 0, 0, 0) .. job.rest
  local _, _, _, _, flags, priority = my.head(draft)
  local conflict, holds_key = find_conflict(job, draft, flags)
  if conflict then return conflict end
  local lane, policy = my.lane_of(job.queue, job.task), my.policy_of(job.policy, job.keep)
  local body = struct.pack('>i8i8I4I4', job.created, 0, lane, policy) .. job.rest
  my.count_policy(policy, 1)
  call('HSET', P .. 'jobs', job.id, body)
  my.list({ job.id })
  if job.history ~= '' then call('HSET', P .. 'history', job.id, job.history) end
  if job.progress ~= '' then call('HSET', P .. 'progress', job.id, job.progress) end
  place(job, lane, priority, body, flags)
  local key, kind = my.unique_of(body, flags)
  if holds_key then my.hold(key, kind, job.over, job.id) end
  local idempotency_key = my.idempotency_key_of(body, flags)
  if idempotency_key then call('HSET', P .. 'idem', idempotency_key, job.id) end
  return 1
end

while my.cursor < #ARGV do answers[#answers + 1] = store(read()) end
my.close()
return answers

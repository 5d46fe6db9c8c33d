-- Set a queue's switches.
--
-- before -> after: the queue in `paused` or not, its bound in `bounds` or not. Resuming brings its lines back into
-- `lines` and draws a seq, so that who waits for work looks again.
-- ARGV: clock, queue, `1` to pause, `0` to resume, or empty; bound, `-` to lift it, or empty.
-- include common

local queue, paused, bound = my.take(), my.take(), my.take()
if paused == '1' then call('SADD', P .. 'paused', queue) end
if paused == '0' and call('SREM', P .. 'paused', queue) == 1 then
  my.draw_seq()
  my.standing_queues[queue] = true
  for _, member in ipairs(call('SMEMBERS', P .. 'aside')) do
    local line, name = my.split(member)
    if my.split(name) == queue then
      call('SREM', P .. 'aside', member)
      my.set_head(line, member)
    end
  end
end
if bound == '-' then
  call('HDEL', P .. 'bounds', queue)
  if call('EXISTS', P .. 'bounds') == 0 then call('HDEL', P .. 'meta', 'bounded') end
elseif bound ~= '' then
  call('HSET', P .. 'bounds', queue, bound)
  call('HSET', P .. 'meta', 'bounded', '1')
end
my.close()
return 1

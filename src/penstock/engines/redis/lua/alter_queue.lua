-- Set a queue's switches.
--
-- before -> after: the queue in `paused` or not, its bound in `bounds` or not. Resuming draws a seq, so that who waits
-- for work looks again. ARGV: clock, queue, `1` to pause, `0` to resume, or empty; bound, `-` to lift it, or empty.
-- include common

local queue, paused, bound = my.take(), my.take(), my.take()
if paused == '1' then call('SADD', P .. 'paused', queue) end
if paused == '0' and call('SREM', P .. 'paused', queue) == 1 then
  my.draw_seq()
  my.standing_queues[queue] = true
end
if bound == '-' then
  call('HDEL', P .. 'bounds', queue)
elseif bound ~= '' then
  call('HSET', P .. 'bounds', queue, bound)
end
my.close()
return 1

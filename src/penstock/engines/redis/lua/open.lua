-- Make the store if there is none, and see whether its server is another one since.
--
-- before: no `meta`, or one -> after: `meta` has schema, epoch and the replication id of the server. A server that took
-- over from another one may have lost the last writes of that one: it begins an epoch, and all leases are void.
-- ARGV: clock, schema, random epoch, replication id of the server, that of a server it took over from, else zeros;
-- `1` if it surely was restarted and what it took over from was itself.
-- The id also changes when a server is restarted or gets its first replica; then nobody took over. What a restart lost
-- is found out by who made it (see exchange.lua).
-- Answers {schema, epoch, late results}.
-- include common
-- include leases

local schema, epoch, replid, replid_before, came_back = my.take(), my.take(), my.take(), my.take(), my.take()
local known = call('HGET', P .. 'meta', 'replid')
if call('HEXISTS', P .. 'meta', 'epoch') == 0 then
  call('HSET', P .. 'meta', 'schema', schema, 'epoch', epoch, 'replid', replid)
elseif known ~= replid and replid ~= '' then
  call('HSET', P .. 'meta', 'replid', replid)
  if replid_before:find('[^0]') and not (came_back == '1' and replid_before == known) then
    call('HSET', P .. 'meta', 'epoch', epoch)
    for _, name in ipairs(call('HKEYS', P .. 'processes')) do my.void_lease(name) end
    my.drop_empty_leases()
  end
end
local meta = call('HMGET', P .. 'meta', 'schema', 'epoch', 'late')
return { meta[1], meta[2], meta[3] or '0' }

-- Claims and their fences.

-- Process number, beat, place in its answer, fate, fence; and where the rest begins.
function my.claim_of(record) return struct.unpack('>I4i8I4BBc0', record) end

-- Number of the claim, since when, process; the rest of a record begins with the kind of the body.
function my.attempt_of(record, at) return struct.unpack('>i8i8I2c0', record, at + 9) end

function my.attempt(number, claimed, process)
  return struct.pack('>i8i8I2', number, claimed, #process) .. process
end

function my.has_fence(record, fence)
  local length = #fence
  return byte(record, 18) == length and sub(record, 19, 18 + length) == fence
end

function my.holds(id, fence)
  local record = call('HGET', P .. 'claims', id)
  return record and my.has_fence(record, fence)
end

-- One digest is random enough for 4,096 tokens, which tell claims of the same script apart by their last 12 bits.
my.drawn, my.DIGITS = 0, {
  [0] = '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
}
function my.new_fence(seed, number)
  local drawn, digits = my.drawn, my.DIGITS
  if drawn % 4096 == 0 then my.token = '.' .. sub(redis.sha1hex(seed .. drawn), 1, 13) end
  my.drawn = drawn + 1
  if drawn % 16 == 0 then
    my.token_front = my.token .. digits[floor(drawn / 256) % 16] .. digits[floor(drawn / 16) % 16]
  end
  return (number == 1 and '1' or my.text(number)) .. my.token_front .. digits[drawn % 16]
end

-- What sessions ask of a key space: each command checked, carried out and answered: `_core/keys/requests.py`, rule for
-- rule. A command that makes no sense is an error and changes nothing; limits are checked before anything is changed.

keys.part(function()
  -- The parts of a body: `each` for each of `many` keys.
  local function parts_of(body, many, each)
    local most = LIMITS.keys_per_call
    if many < 1 or many > most then
      usage("one call takes 1 to %.0f keys, not %.0f", most, many)
    end
    return split_parts(body, many * each)
  end

  local function check_length(name)
    if #name > LIMITS.key_bytes then
      usage("the name of a key has at most %.0f bytes, not %s...", LIMITS.key_bytes, text.quoted(text.first(name, 100)))
    end
  end

  local function name_of(name)
    if name == "" then
      usage("the name of a key has at least one character")
    end
    check_length(name)
    return name
  end

  -- Every part from the first on, `step` on from one to the next, as names.
  local function names_of(parts, step)
    local names, longest = {}, 0
    for place = 1, #parts, step do
      names[#names + 1] = parts[place]
      longest = math.max(longest, #parts[place])
    end
    if longest > LIMITS.key_bytes then
      usage("the name of a key has at most %.0f bytes, not %.0f", LIMITS.key_bytes, longest)
    end
    for _, name in ipairs(names) do
      if not text.is_utf8(name) then
        raise("ProtocolError", {reason = "the name of a key is no UTF-8: " .. text.bytes(name)})
      end
      name_of(name)
    end
    return names
  end

  local function value_of(bytes)
    if #bytes > LIMITS.value_bytes then
      raise("PayloadTooLargeError", {size = #bytes, limit = LIMITS.value_bytes})
    end
    return bytes
  end

  -- Give a key another value, or make it, if there is room.
  local function change(sp, key, value, held)
    space.check_names(sp, held and 0 or 1)
    space.check_room(sp, values.cost(key, held, #value))
    values.change(sp, key, value, held)
    presences.came(sp, key)
  end

  -- -------------------------------------------------------------------------------------------------- values

  local function set(sp, sid, cmd, body)
    local call, seat, many, ttl, lasting = unpack(cmd, 2, 6)
    if not (ttl > 0) then
      usage("ttl must be over 0 seconds, not %s", text.seconds(ttl))
    end
    local parts = parts_of(body, many, 2)
    local names, given = {}, {}
    for place, name in ipairs(names_of(parts, 2)) do
      if not given[name] then
        names[#names + 1] = name
      end
      given[name] = value_of(parts[2 * place])
    end
    local new, size = 0, 0
    for _, name in ipairs(names) do
      local held = values.size(sp, name)
      new = new + (held and 0 or 1)
      size = size + values.cost(name, held, #given[name])
    end
    space.check_names(sp, new)
    space.check_room(sp, size)
    local owner, revision = not lasting and space.owner(sid, seat) or nil, 0
    for _, name in ipairs(names) do
      revision = values.set(sp, name, given[name], now + ttl, owner)
    end
    for _, name in ipairs(names) do
      presences.came(sp, name)
    end
    return cmsgpack.pack(revision)
  end

  local function wait_for(sp, sid, cmd, names, as_values)
    replies.check(sid, cmd[2])
    local cost = presences.cost(names)
    space.check_room(sp, cost)
    presences.add(sp, sid, cmd, names, as_values, cost)
  end

  local function get(sp, sid, cmd, body)
    local names = names_of(parts_of(body, cmd[4], 1), 1)
    local held, err = presences.values_of(sp, names)
    if err then
      throw(err)
    end
    return held or wait_for(sp, sid, cmd, names, true)
  end

  local function wait(sp, sid, cmd, body)
    local names = names_of(parts_of(body, cmd[4], 1), 1)
    return presences.are_there(sp, names) and "" or wait_for(sp, sid, cmd, names, false)
  end

  local function check(sp, _, cmd, body)
    return pack.bool(presences.are_there(sp, names_of(parts_of(body, cmd[4], 1), 1)))
  end

  -- A decimal number in two halves: high * 10^10 + low, both with its sign.
  local function halves(text)
    local sign, digits = text:match("^(-?)(%d+)$")
    sign = sign == "-" and -1 or 1
    return sign * tonumber("0" .. digits:sub(1, -11)), sign * tonumber(digits:sub(-10))
  end

  -- The sum of two such: whether it is below zero, and the halves of its size.
  local function sum(one, other)
    local high, low = halves(one)
    local more_high, more_low = halves(other)
    high, low = high + more_high, low + more_low
    local negative = high < 0 or high == 0 and low < 0
    if negative then
      high, low = -high, -low
    end
    local carry = math.floor(low / 1e10)
    high, low = high + carry, low - carry * 1e10
    if high < 0 then -- the halves had different signs, and the low one was the larger
      negative, high, low = not negative, -high, -low
      carry = math.floor(low / 1e10)
      high, low = high + carry, low - carry * 1e10
    end
    return negative and not (high == 0 and low == 0), high, low
  end

  local function add(sp, _, cmd)
    local amount, key = cmd[4], name_of(cmd[5])
    local held = values.get(sp, key)
    if held and not (held:find("^%-?%d+$") and #held:gsub("^-", "") <= 19) then
      raise("KeyOperationError", {
        op = "add", key = key,
        reason = ("it holds %s, which is no whole number; set it to one, or delete it"):format(
          text.bytes(held:sub(1, 40))
        ),
      })
    end
    local negative, high, low = sum(held or "0", amount)
    local text = high > 0 and ("%.0f%010.0f"):format(high, low) or ("%.0f"):format(low)
    local largest = negative and "9223372036854775808" or "9223372036854775807"
    if #text > 19 or #text == 19 and text > largest then
      raise("KeyOperationError", {
        op = "add", key = key,
        reason = ("the sum %s has more than 64 bits"):format(negative and "-" .. text or text),
      })
    end
    change(sp, key, negative and "-" .. text or text, held and #held)
    return pack.wide(negative, high, low)
  end

  local function append(sp, _, cmd, body)
    local key = name_of(cmd[4])
    local held, more = values.get(sp, key), value_of(body)
    local value = value_of((held or "") .. more)
    change(sp, key, value, held and #held)
    return cmsgpack.pack(#value)
  end

  local function compare_set(sp, _, cmd, body)
    local absent, key = cmd[4], name_of(cmd[5])
    local parts = parts_of(body, 1, 2)
    local expected, desired = value_of(parts[1]), value_of(parts[2])
    local held = values.get(sp, key)
    local is_done
    if absent then
      is_done = held == nil
    else
      is_done = held == expected
    end
    if is_done then
      change(sp, key, desired, held and #held)
      held = desired
    end
    return "\146" .. pack.bool(is_done) .. (held and pack.bytes(held) or pack.none)
  end

  local function delete(sp, _, cmd, body)
    local deleted = 0
    for _, name in ipairs(names_of(parts_of(body, cmd[4], 1), 1)) do
      local key, queue = values.delete(sp, name, changes.DELETED), queues.delete(sp, name)
      deleted = deleted + ((key or queue) and 1 or 0)
    end
    return cmsgpack.pack(deleted)
  end

  local function bounds(prefix)
    check_length(prefix)
    if prefix == "" then
      return "-", "+"
    end
    return space.range(prefix)
  end

  local function list(sp, _, cmd)
    local found = space.read(sp, "ZRANGEBYLEX", "names", bounds(cmd[4]))
    for place, name in ipairs(found) do
      found[place] = cmsgpack.pack(name)
    end
    local told = pack.array(found)
    if #told > LIMITS.payload_bytes then
      raise("PayloadTooLargeError", {size = #told, limit = LIMITS.payload_bytes})
    end
    return told
  end

  local function count(sp, _, cmd)
    return cmsgpack.pack(space.read(sp, "ZLEXCOUNT", "names", bounds(cmd[4])))
  end

  -- -------------------------------------------------------------------------------------------------- queues

  local function check_item(sp, key, value, spare)
    queues.check(sp, key, spare)
    if not queues.length(sp, key) then
      space.check_names(sp, 1 - spare)
    end
    space.check_room(sp, queues.cost(key, #value))
  end

  local function push(sp, _, cmd, body)
    local key, value = name_of(cmd[4]), value_of(body)
    check_item(sp, key, value, 0)
    return cmsgpack.pack(queues.push(sp, key, value))
  end

  local function put_back(sp, _, cmd, body)
    local number, key, value = cmd[4], name_of(cmd[5]), value_of(body)
    -- Others may have filled the queue meanwhile: what goes back has room of its own, or it would be lost.
    check_item(sp, key, value, LIMITS.waiting_calls)
    queues.put_back(sp, key, number, value)
    return ""
  end

  local function pop(sp, sid, cmd)
    local is_to_wait, key = cmd[4], name_of(cmd[5])
    if is_to_wait and not queues.length(sp, key) then
      space.check_names(sp, 1)
    end
    queues.pop(sp, sid, cmd)
  end

  local function queue_length(sp, _, cmd)
    return cmsgpack.pack(queues.length(sp, name_of(cmd[4])) or 0)
  end

  -- ----------------------------------------------------------------------------------- meetings, locks, changes

  local function meet(sp, sid, cmd)
    name_of(cmd[5])
    meetings.come(sp, sid, cmd)
  end

  local function lock(sp, sid, cmd)
    local cost = locks.cost(sp, name_of(cmd[4]))
    if cost > 0 then
      space.check_room(sp, cost)
    end
    locks.ask(sp, sid, cmd)
  end

  local function unlock(sp, sid, cmd)
    return pack.bool(locks.let_go(sp, space.owner(sid, cmd[3]), cmd[5], cmd[4]))
  end

  local function follow(sp, sid, cmd)
    check_length(cmd[5])
    changes.follow(sp, sid, cmd)
  end

  -- ------------------------------------------------------------------------------------------------- inside

  -- Have commands of a kind, by its number on the wire, carried out in the space that they name; what `request` returns
  -- is the answer.
  local function serve(kind, request)
    handlers[kind] = function(sid, cmd, body)
      for place = 4, #cmd do
        -- An integer that a double does not hold comes in two halves. None that makes sense is as large as that.
        local halved = cmd[place]
        if type(halved) == "table" then
          cmd[place] = halved[1] * 4294967296 + halved[2]
        end
      end
      local sp = space.open(membership.space(sid, cmd[3]))
      values.expire(sp)
      local told = request(sp, sid, cmd, body)
      if told then
        replies.answer_now(sid, cmd[2], told)
      end
    end
  end

  serve(60, set)
  serve(61, get)
  serve(62, wait)
  serve(63, check)
  serve(64, add)
  serve(65, append)
  serve(66, compare_set)
  serve(67, delete)
  serve(68, list)
  serve(69, count)
  serve(70, push)
  serve(71, pop)
  serve(72, put_back)
  serve(73, queue_length)
  serve(74, meet)
  serve(75, lock)
  serve(76, unlock)
  serve(77, follow)
end)

-- Queues: first in, first out, each item for one: `_core/keys/queues.py`, rule for rule.
--
-- "queues" has how many items a queue holds, also 0 where it is only waited for; "order" the items of all, by queue and
-- number, with their sizes; "items" their values. What was popped keeps its value there until it is known to have
-- arrived: to put it back is to put it in order again.

keys.part(function()
  local ITEM_COSTS = 64 -- bytes that an item is counted with beside its own

  local function item(key, number)
    return struct.pack(">I2", #key) .. key .. pack.eight(number)
  end

  local function in_order(key, number, size)
    return item(key, number) .. struct.pack(">I4", size)
  end

  -- How many items a queue holds; nil where it holds none and is not waited for.
  function queues.length(sp, key)
    return tonumber(space.read(sp, "HGET", "queues", key) or nil)
  end

  -- Whether such a queue holds something.
  function queues.holds(sp, key)
    return (queues.length(sp, key) or 0) > 0
  end

  -- How many bytes more an item of so many bytes is.
  function queues.cost(key, size)
    return text.length(key) + size + ITEM_COSTS
  end

  -- Raises if no item may be added; `spare`: so many are, over the limit.
  function queues.check(sp, key, spare)
    if (queues.length(sp, key) or 0) >= LIMITS.queue_items + spare then
      store_full("queue_items", "queue " .. text.first(text.quoted(key), 100))
    end
  end

  -- Whether an item is in its place: one that is put back twice is there once.
  local function is_back(sp, key, number)
    local prefix = item(key, number)
    local last = "(" .. prefix .. "\255\255\255\255\255"
    return #space.read(sp, "ZRANGEBYLEX", "order", "[" .. prefix, last, "LIMIT", 0, 1) > 0
  end

  local function drop_if_idle(sp, key)
    if not queues.holds(sp, key) and lines.is_empty(sp, lines.POP, key) then
      space.write(sp, "HDEL", "queues", key)
    end
  end

  -- What a queue held is not there any more.
  local function unname(sp, key)
    if not values.is_there(sp, key) then
      space.write(sp, "ZREM", "names", key)
    end
  end

  -- What tells of an item, whose value is among "items", and the receipt that is to be had for it.
  local function wrapped(sp, key, number, value)
    return pack.eight(number) .. value, {kind = "pop", space = sp.name, key = key, number = number}
  end

  -- Give an item to who waited longest, if anybody waits.
  local function hand_on(sp, key, number, value)
    local who = sp.popping > 0 and lines.shift(sp, lines.POP, key)
    if not who then
      return false
    end
    sp.popping = sp.popping - 1
    replies.answer(lines.waiting(who), wrapped(sp, key, number, value))
    drop_if_idle(sp, key)
    return true
  end

  -- The queue holds one more; how many there are.
  local function added(sp, key, number, size)
    space.write(sp, "ZADD", "order", 0, in_order(key, number, size))
    local length = space.write(sp, "HINCRBY", "queues", key, 1)
    if length == 1 then
      space.write(sp, "ZADD", "names", 0, key)
    end
    sp.queues_bytes = sp.queues_bytes + queues.cost(key, size)
    presences.came(sp, key)
    return length
  end

  -- Append an item; how many there are then.
  function queues.push(sp, key, value)
    sp.item = sp.item + 1
    space.write(sp, "HSET", "items", item(key, sp.item), value)
    return hand_on(sp, key, sp.item, value) and 0 or added(sp, key, sp.item, #value)
  end

  -- An item that was popped goes back to its place.
  function queues.put_back(sp, key, number, value)
    if number <= 0 or number > sp.item then
      raise("ProtocolError", {reason = ("no item has number %.0f, so none is put back"):format(number)})
    end
    if is_back(sp, key, number) then
      return
    end
    space.write(sp, "HSET", "items", item(key, number), value)
    if not hand_on(sp, key, number, value) then
      added(sp, key, number, #value)
    end
  end

  local function take_out(sp, key)
    local first, last = space.range(struct.pack(">I2", #key) .. key)
    local member = space.read(sp, "ZRANGEBYLEX", "order", first, last, "LIMIT", 0, 1)[1]
    local number, size = struct.unpack(">I8I4", member, #key + 3)
    space.write(sp, "ZREM", "order", member)
    sp.queues_bytes = sp.queues_bytes - queues.cost(key, size)
    if space.write(sp, "HINCRBY", "queues", key, -1) == 0 then
      space.write(sp, "HDEL", "queues", key) -- nobody waits where something is
      unname(sp, key)
    end
    return number, space.read(sp, "HGET", "items", item(key, number))
  end

  -- Take the head, or wait for one.
  function queues.pop(sp, sid, cmd)
    local call, seat, is_to_wait, key = unpack(cmd, 2, 5)
    replies.check(sid, call)
    local length = queues.length(sp, key)
    if (length or 0) > 0 then
      replies.answer_now(sid, call, wrapped(sp, key, take_out(sp, key)))
      return
    elseif not is_to_wait then
      raise("QueueEmptyError", {key = key})
    end
    if not length then
      space.write(sp, "HSET", "queues", key, 0)
    end
    sp.popping = sp.popping + 1
    lines.wait(sp, lines.POP, key, {kind = "pop", sid = sid, seat = seat, call = call, key = key})
  end

  -- Drop what a queue holds; whether it held something.
  function queues.delete(sp, key)
    local length = queues.length(sp, key) or 0
    if length == 0 then
      return false
    end
    local first, last = space.range(struct.pack(">I2", #key) .. key)
    repeat
      local some = space.read(sp, "ZRANGEBYLEX", "order", first, last, "LIMIT", 0, 1000)
      for place, member in ipairs(some) do
        sp.queues_bytes = sp.queues_bytes - queues.cost(key, struct.unpack(">I4", member, #key + 11))
        some[place] = member:sub(1, -5)
      end
      if #some > 0 then
        space.write(sp, "HDEL", "items", unpack(some))
        space.write(sp, "ZREMRANGEBYLEX", "order", "[" .. some[1], "(" .. some[#some] .. "\255\255\255\255\255")
      end
    until #some < 1000
    space.write(sp, "HDEL", "queues", key)
    unname(sp, key)
    return true
  end

  waits.pop = {
    facts = function()
      return {}, {0}
    end,
    withdraw = function(w)
      local sp = space.open(w.space)
      lines.withdraw(sp, lines.POP, w.key, w)
      sp.popping = sp.popping - 1
      drop_if_idle(sp, w.key)
      return true
    end,
    -- The caller has acknowledged the item.
    confirmed = function(receipt)
      local sp = space.open(receipt.space)
      if not is_back(sp, receipt.key, receipt.number) then
        space.write(sp, "HDEL", "items", item(receipt.key, receipt.number))
      end
    end,
    -- Its session ended before it did: the item goes back to its place.
    unconfirmed = function(receipt)
      local sp = space.open(receipt.space)
      local value = space.read(sp, "HGET", "items", item(receipt.key, receipt.number))
      if not value or is_back(sp, receipt.key, receipt.number) then
        return -- without a value: the space was dropped meanwhile
      end
      if not hand_on(sp, receipt.key, receipt.number, value) then
        added(sp, receipt.key, receipt.number, #value)
      end
    end,
  }
end)

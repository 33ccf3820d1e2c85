-- Values by name: what a key holds, for how long, and whose it is: `_core/keys/values.py`, rule for rule.
--
-- "values" has what keys hold; "marks" the end and the owner of those that have one, "ends" and "owned" the same in the
-- order of ends and by owner. "names" has the keys, and the queues that hold something, in the order of their bytes.

local values, queues = {KEY_COSTS = 128}, {}

keys.part(function()
  local MARK = ">dI8"
  local EXPIRED_AT_ONCE = 1000

  -- What a key holds; nil if there is no such key.
  function values.get(sp, key)
    return space.read(sp, "HGET", "values", key) or nil
  end

  function values.is_there(sp, key)
    return space.read(sp, "HEXISTS", "values", key) == 1
  end

  -- How many bytes it holds; nil if there is no such key.
  function values.size(sp, key)
    local size = space.read(sp, "HSTRLEN", "values", key)
    return (size > 0 or values.is_there(sp, key)) and size or nil
  end

  -- How many bytes more it is to have so many under this key, which holds `held` now.
  function values.cost(key, held, size)
    return held and size - held or text.length(key) + size + values.KEY_COSTS
  end

  local function unmark(sp, key)
    local mark = sp.marked > 0 and space.read(sp, "HGET", "marks", key)
    if not mark then
      return
    end
    local expires, revision, rest = struct.unpack(MARK, mark)
    local owner = mark:sub(rest)
    if expires ~= math.huge then
      space.write(sp, "ZREM", "ends", pack.eight(revision) .. key)
      space.ends_anew(sp)
    end
    if owner ~= "" then
      space.write(sp, "ZREM", "owned", owner .. pack.eight(revision) .. key)
    end
    space.write(sp, "HDEL", "marks", key)
    sp.marked = sp.marked - 1
  end

  local function mark(sp, key, revision, expires, owner)
    if expires ~= math.huge then
      space.write(sp, "ZADD", "ends", ("%.17g"):format(expires), pack.eight(revision) .. key)
      space.ends_anew(sp, expires)
    end
    if owner then
      space.write(sp, "ZADD", "owned", 0, owner .. pack.eight(revision) .. key)
    end
    space.write(sp, "HSET", "marks", key, struct.pack(MARK, expires, revision) .. (owner or ""))
    sp.marked = sp.marked + 1
  end

  -- Give a key, which holds `held` bytes or is not there, another value; its end and its owner stay.
  function values.change(sp, key, value, held)
    sp.values_bytes = sp.values_bytes + values.cost(key, held, #value)
    space.write(sp, "HSET", "values", key, value)
    if not held then
      space.write(sp, "ZADD", "names", 0, key)
    end
    return changes.add(sp, changes.SET, key, value)
  end

  -- Give a key a value, an end and an owner. Returns the revision.
  function values.set(sp, key, value, expires, owner)
    local held = values.size(sp, key)
    if held then
      unmark(sp, key)
    end
    local revision = values.change(sp, key, value, held)
    if expires ~= math.huge or owner then
      mark(sp, key, revision, expires, owner)
    end
    return revision
  end

  -- Delete a key, if there is one.
  function values.delete(sp, key, kind)
    local held = values.size(sp, key)
    if not held then
      return false
    end
    unmark(sp, key)
    sp.values_bytes = sp.values_bytes - (text.length(key) + held + values.KEY_COSTS)
    space.write(sp, "HDEL", "values", key)
    if not queues.holds(sp, key) then
      space.write(sp, "ZREM", "names", key)
    end
    changes.add(sp, kind, key)
    return true
  end

  -- Who owned keys has gone.
  function values.end_owner(sp, owner)
    local first, last = space.range(owner)
    for _, member in ipairs(space.read(sp, "ZRANGEBYLEX", "owned", first, last)) do
      values.delete(sp, member:sub(#owner + 9), changes.ENDED)
    end
  end

  -- Keys past their time are gone.
  function values.expire(sp)
    while keys.next_end(sp.name) <= now do
      local some = space.read(
        sp, "ZRANGEBYSCORE", "ends", "-inf", ("%.17g"):format(now), "LIMIT", 0, EXPIRED_AT_ONCE
      )
      for _, member in ipairs(some) do
        space.write(sp, "ZREM", "ends", member)
        values.delete(sp, member:sub(9), changes.EXPIRED)
      end
      space.ends_anew(sp)
    end
  end

  function keys.run_timers(name)
    if keys.next_end(name) <= now then
      values.expire(space.open(name))
    end
  end
end)

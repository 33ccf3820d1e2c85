-- One key space: where its state lies, and its counters. "" is the room's own; others have an incarnation's number.
--
-- A structure is one redis key for all keys, queues and locks of the space, so that its time to live is one, and no
-- queue is forgotten that nobody touched for a day. What has an order is a sorted set whose members begin with whose
-- they are, and go on with a number of eight bytes: they are read by range, without a score.

local space = {}

keys.part(function()
  local COUNTERS = {
    "revision", -- the last change's
    "forgotten", -- changes up to this revision are not kept any more
    "kept", -- how many are
    "kept_bytes",
    "following", -- calls that wait for changes
    "values_bytes",
    "marked", -- keys that have an end or an owner
    "stood", -- places given out in all lines
    "item", -- number of the last item of a queue
    "queues_bytes",
    "popping", -- calls that wait for an item
    "crowds", -- sets of names that are waited for
    "waits_bytes",
    "locks_bytes",
  }
  local PARTS = {
    "counts", "values", "marks", "names", "ends", "owned", "changes", "prefixes", "lines", "crowds", "stands",
    "queues", "order", "items", "locks", "held", "meetings",
  }
  local opened, due = {}, {}

  local function at(name)
    return P .. ":k" .. name .. ":"
  end

  -- Nothing is left of the run before.
  function keys.begin()
    opened, due = {}, {}
  end

  -- The state of a space, as it is now in this run.
  function space.open(name)
    local sp = opened[name]
    if not sp then
      sp = {name = name, at = at(name), written = {}, changed = false, kept_counters = {}}
      local held = call("HMGET", sp.at .. "counts", unpack(COUNTERS))
      for place, counter in ipairs(COUNTERS) do
        sp[counter] = tonumber(held[place] or 0)
        sp.kept_counters[counter] = sp[counter]
      end
      opened[name] = sp
    end
    return sp
  end

  -- Read a structure of it.
  function space.read(sp, command, part, ...)
    return call(command, sp.at .. part, ...)
  end

  -- Change a structure of it. Counters may be changed beside that.
  function space.write(sp, command, part, ...)
    sp.written[part], sp.changed = true, true
    return call(command, sp.at .. part, ...)
  end

  -- Keep what the run has changed.
  function keys.finish()
    for _, sp in pairs(opened) do
      if sp.changed then
        local held = {}
        for _, counter in ipairs(COUNTERS) do
          if sp[counter] ~= sp.kept_counters[counter] then
            sp.kept_counters[counter] = sp[counter]
            held[#held + 1] = counter
            held[#held + 1] = ("%.0f"):format(sp[counter])
          end
        end
        if #held > 0 then
          space.write(sp, "HSET", "counts", unpack(held))
        end
        for part in pairs(sp.written) do
          if call("TTL", sp.at .. part) == -1 then
            call("EXPIRE", sp.at .. part, ROOM_SECONDS)
          end
        end
        sp.written, sp.changed = {}, false
      end
    end
  end

  -- It is in use: all of it is kept from now on for as long as a room.
  function keys.refresh(name)
    for _, part in ipairs(PARTS) do
      call("EXPIRE", at(name) .. part, ROOM_SECONDS)
    end
  end

  -- Nobody can reach it any more.
  function keys.drop(name)
    for _, part in ipairs(PARTS) do
      call("UNLINK", at(name) .. part)
    end
    opened[name], due[name] = nil, nil
  end

  -- When the first key is past its time; math.huge where none has an end.
  function keys.next_end(name)
    if not due[name] then
      local first = call("ZRANGE", at(name) .. "ends", 0, 0, "WITHSCORES")
      due[name] = tonumber(first[2] or math.huge)
    end
    return due[name]
  end

  -- Ends were added or are gone; `when`: one that was added.
  function space.ends_anew(sp, when)
    due[sp.name] = nil
    if when then state.due_at(when) end
  end

  -- Bytes that the space is counted with.
  function keys.bytes(name)
    local sp = space.open(name)
    return sp.values_bytes + sp.queues_bytes + sp.kept_bytes + sp.waits_bytes + sp.locks_bytes
  end

  -- State for people, encoded.
  function keys.describe(name)
    local sp, holding = space.open(name), 0
    for _, length in ipairs(space.read(sp, "HVALS", "queues")) do
      holding = holding + (length ~= "0" and 1 or 0)
    end
    return cmsgpack.pack({keys = space.read(sp, "HLEN", "values"), queues = holding, bytes = keys.bytes(name)})
  end

  -- Raises if so many more keys and queues are too many.
  function space.check_names(sp, more)
    if more + space.read(sp, "HLEN", "values") + space.read(sp, "HLEN", "queues") > LIMITS.keys then
      store_full("keys", "keys and queues")
    end
  end

  -- Raises if so many more bytes are too many.
  function space.check_room(sp, size)
    groups.check_room(sp.name, size)
  end

  -- Who owns something: a session and its seat. No owner begins as another one does.
  function space.owner(sid, seat)
    return ("%s:%.0f;"):format(sid, seat)
  end

  -- Bounds of the members of a sorted set that begin so, and go on with a number.
  function space.range(prefix)
    return "[" .. prefix, "(" .. prefix .. "\255"
  end
end)

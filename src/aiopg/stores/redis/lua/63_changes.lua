-- The changes of one key space, and who waits to hear of them: `_core/keys/changes.py`, rule for rule.
--
-- A change is kept as it is told, behind its size, and where in it its key lies; their revisions have no gaps.

local changes = {SET = 0, DELETED = 1, EXPIRED = 2, ENDED = 3}

keys.part(function()
  local CHANGES_TOLD = 256 -- in one answer, and not much over ...
  local BYTES_TOLD = 1024 * 1024 -- ... these bytes: more is for the next one
  local HEAD = ">I4I2I2"

  local function told(revision, some)
    return "\146" .. cmsgpack.pack(revision) .. pack.array(some)
  end

  local function forget_oldest(sp)
    local old = space.write(sp, "LPOP", "changes")
    sp.kept = sp.kept - 1
    sp.kept_bytes = sp.kept_bytes - struct.unpack(HEAD, old)
    sp.forgotten = sp.forgotten + 1
  end

  -- Nobody follows these keys any more.
  local function drop(sp, prefix)
    if space.write(sp, "HINCRBY", "prefixes", #prefix, -1) == 0 then
      space.write(sp, "HDEL", "prefixes", #prefix)
    end
  end

  local function tell(sp, key, change)
    local lengths = space.read(sp, "HKEYS", "prefixes")
    table.sort(lengths, function(a, b)
      return tonumber(a) < tonumber(b)
    end)
    for _, length in ipairs(lengths) do
      local prefix = key:sub(1, tonumber(length))
      local calls = tonumber(length) <= #key and lines.take_calls(sp, lines.FOLLOW, prefix) or {}
      if #calls > 0 then
        sp.following = sp.following - #calls
        drop(sp, prefix)
        lines.answer_all(calls, told(sp.revision, {change}))
      end
    end
  end

  -- A key changed: who follows it is told. Returns the revision.
  function changes.add(sp, kind, key, value)
    sp.revision = sp.revision + 1
    local before = "\148" .. cmsgpack.pack(sp.revision) .. cmsgpack.pack(kind) .. cmsgpack.pack(key)
    local change = before .. (value and pack.bytes(value) or pack.none)
    local size = text.length(key) + (value and #value or 0)
    space.write(sp, "RPUSH", "changes", struct.pack(HEAD, size, #before - #key, #key) .. change)
    sp.kept, sp.kept_bytes = sp.kept + 1, sp.kept_bytes + size
    while sp.kept_bytes > LIMITS.kept_changes_bytes or sp.kept > LIMITS.kept_changes do
      forget_oldest(sp)
    end
    if sp.following > 0 then
      tell(sp, key, change)
    end
    return sp.revision
  end

  -- Changes after a revision of keys that begin so, as many as are told at once; up to which revision that is.
  local function collect(sp, after, prefix)
    local some, size = {}, 0
    for from = after - sp.forgotten, sp.kept - 1, CHANGES_TOLD do
      for place, kept in ipairs(space.read(sp, "LRANGE", "changes", from, from + CHANGES_TOLD - 1)) do
        local own, offset, length = struct.unpack(HEAD, kept)
        if length >= #prefix and kept:sub(9 + offset, 8 + offset + #prefix) == prefix then
          some[#some + 1] = kept:sub(9)
          size = size + own
          if #some == CHANGES_TOLD or size > BYTES_TOLD then
            return some, sp.forgotten + from + place
          end
        end
      end
    end
    return some, sp.revision
  end

  -- Tell what follows a revision, now or when there is something; -1: the one of this moment.
  function changes.follow(sp, sid, cmd)
    local call, seat, after, prefix = unpack(cmd, 2, 5)
    if after == -1 then
      after = sp.revision
    end
    if after < sp.forgotten or after > sp.revision then
      raise("WatchGapError", {prefix = prefix, revision = after, oldest = sp.forgotten})
    end
    replies.check(sid, call)
    local some, heard = collect(sp, after, prefix)
    if #some > 0 then
      replies.answer_now(sid, call, told(heard, some))
      return
    end
    if lines.is_empty(sp, lines.FOLLOW, prefix) then
      space.write(sp, "HINCRBY", "prefixes", #prefix, 1)
    end
    sp.following = sp.following + 1
    lines.wait(sp, lines.FOLLOW, prefix, {kind = "follow", sid = sid, seat = seat, call = call, prefix = prefix})
  end

  waits.follow = {
    facts = function()
      return {}, {}
    end,
    withdraw = function(w)
      local sp = space.open(w.space)
      lines.withdraw(sp, lines.FOLLOW, w.prefix, w)
      sp.following = sp.following - 1
      if lines.is_empty(sp, lines.FOLLOW, w.prefix) then
        drop(sp, w.prefix)
      end
      return true
    end,
  }
end)

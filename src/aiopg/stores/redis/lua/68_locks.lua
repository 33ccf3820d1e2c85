-- Locks: one holder at a time, in the order of asking: `_core/keys/locks.py`, rule for rule but for the numbers.
--
-- A number is larger than all before it in the room, and at least the time in milliseconds: so also where this server
-- lost the last locks that it gave, or has forgotten the room, what a lock protects never sees a later holder with a
-- smaller number.

local locks = {}

keys.part(function()
  local NUMBERS_A_MILLISECOND = 1024

  local function held_as(owner, number, key)
    return owner .. pack.eight(number) .. key
  end

  -- Number and owner of who holds a lock.
  local function read(sp, key)
    local held = space.read(sp, "HGET", "locks", key)
    if held then
      return struct.unpack(">I8", held), held:sub(9)
    end
  end

  local function give(sp, key, owner)
    local number = math.max(room:num("lock") + 1, math.floor(now * 1000) * NUMBERS_A_MILLISECOND)
    room:set("lock", ("%.0f"):format(number))
    space.write(sp, "HSET", "locks", key, pack.eight(number) .. owner)
    space.write(sp, "ZADD", "held", 0, held_as(owner, number, key))
    return cmsgpack.pack(number)
  end

  -- How many bytes more it is to hold this lock; none where somebody does.
  function locks.cost(sp, key)
    return read(sp, key) and 0 or text.length(key) + values.KEY_COSTS
  end

  -- Give the lock to a session, or let it stand in line.
  function locks.ask(sp, sid, cmd)
    local call, seat, key = unpack(cmd, 2, 4)
    replies.check(sid, call)
    if read(sp, key) then
      lines.wait(sp, lines.LOCK, key, {kind = "lock", sid = sid, seat = seat, call = call, key = key})
      return
    end
    if space.read(sp, "HLEN", "locks") >= LIMITS.keys then
      store_full("keys", "locks")
    end
    sp.locks_bytes = sp.locks_bytes + locks.cost(sp, key)
    replies.answer_now(sid, call, give(sp, key, space.owner(sid, seat)))
  end

  local function pass_on(sp, key, owner, number)
    space.write(sp, "ZREM", "held", held_as(owner, number, key))
    local who = lines.shift(sp, lines.LOCK, key)
    if not who then
      space.write(sp, "HDEL", "locks", key)
      sp.locks_bytes = sp.locks_bytes - (text.length(key) + values.KEY_COSTS)
      return
    end
    local w = lines.waiting(who)
    replies.answer(w, give(sp, key, space.owner(w.sid, w.seat)))
  end

  -- Let go of a lock; false if this owner does not hold it with that number.
  function locks.let_go(sp, owner, key, number)
    local last, holder = read(sp, key)
    if last ~= number or holder ~= owner then
      return false
    end
    pass_on(sp, key, owner, number)
    return true
  end

  -- Who held locks has gone.
  function locks.end_owner(sp, owner)
    local first, last = space.range(owner)
    for _, member in ipairs(space.read(sp, "ZRANGEBYLEX", "held", first, last)) do
      pass_on(sp, member:sub(#owner + 9), owner, (struct.unpack(">I8", member, #owner + 1)))
    end
  end

  waits.lock = {
    facts = function()
      return {}, {0}
    end,
    withdraw = function(w)
      lines.withdraw(space.open(w.space), lines.LOCK, w.key, w)
      return true
    end,
  }

  -- A session or a member has gone, and takes along what is its.
  function keys.end_owner(name, owner)
    local sp = space.open(name)
    locks.end_owner(sp, owner .. ";")
    values.end_owner(sp, owner .. ";")
  end

  -- Fail all who wait, in a space that nobody can reach any more.
  function keys.fail(name, err)
    for _, w in ipairs(lines.calls(space.open(name))) do
      replies.fail(w, err)
    end
    keys.drop(name)
  end
end)

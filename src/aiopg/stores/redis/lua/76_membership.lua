-- Membership: which session holds which seat, who waits for one, and how a seat is taken and given up. The rules are
-- those of `_core.membership`.
--
-- A session keeps M<seat>, a seat that it has (ns of them; see `keep_seat`), and F<seat>, the error of one that was
-- taken over (nf of them). Who waits for a rank whose holder is away is in the record ":queue": n, order, and Q<order>:
-- {sid, call}; the join that waits has the rest.

rare.part(function()
  local function queue_record()
    return record(":queue")
  end

  -- A session has a seat more, or one less.
  local function seated(seat)
    local held = session(seat.sid)
    held:add("ns", 1)
    seat.order = held:add("order", 1)
    keep_seat(seat)
  end

  local function unseated(sid, number)
    local held = session(sid)
    if not held then return end
    held:set("M" .. number, false)
    held:add("ns", -1)
  end

  -- Members have places in a group that formed of whoever came.
  local function take_seats(seats)
    for _, seat in ipairs(seats) do
      local held = session(seat.sid)
      if held:get("M" .. seat.seat) then
        -- Taken by a join while it was asked for here: a member of ours counts its seats up.
        groups.lose(seat, "it took two seats with one number")
      else
        seated(seat)
      end
    end
  end

  local function take_seat(seat, world)
    groups.join(seat, world)
    seated(seat)
  end

  local function check_place(sid, number, group, holder, ttl)
    local held = session(sid)
    if held:get("M" .. number) then raise("ProtocolError", {reason = string.format("seat %.0f is taken", number)}) end
    local seats = held:num("ns") + held:num("nf") + lobbies.asked_by(sid)
    if seats >= LIMITS.seats then store_full("seats", "this session") end
    if #group > LIMITS.name_bytes or group == "" then
      usage("a group name has 1 to %d bytes, not %s", LIMITS.name_bytes, text.quoted(group))
    end
    if #holder > LIMITS.reason_bytes then
      usage("a member's name has at most %d bytes, not %s", LIMITS.reason_bytes, text.quoted(holder))
    end
    if not (ttl > 0) then usage("data_expiration_seconds must be over 0, not %s", text.seconds(ttl)) end
  end

  local function check_join(sid, j)
    check_place(sid, j.seat, j.group, j.holder, j.ttl)
    if not (j.world >= 1 and j.world <= LIMITS.world_size) then
      usage("world_size must be 1 to %d on this store, not %.0f", LIMITS.world_size, j.world)
    end
    if not (j.rank >= 0 and j.rank < j.world) then usage("rank must be 0 to %.0f, not %.0f", j.world - 1, j.rank) end
  end

  local function seat_for(sid, j)
    return {sid = sid, seat = j.seat, call = j.call, rank = j.rank, ttl = j.ttl, holder = j.holder, used = false}
  end

  -- -------------------------------------------------------------------------------------------- queue for a rank

  -- Who queues, in order: the calls that wait.
  local function queued()
    local held, found = queue_record(), {}
    if held:num("n") == 0 then return found end
    for _, item in ipairs(held:under("Q")) do
      local it = cmsgpack.unpack(item[2])
      found[#found + 1] = replies.waiting(it[1], it[2])
    end
    return found
  end

  local function queue_up(sid, j, holder)
    local held = queue_record()
    local w = {sid = sid, seat = j.seat, call = j.call, kind = "queued", join = j, order = held:num("order") + 1}
    w.holder = {holder.sid, holder.seat, holder.life, holder.holder}
    replies.wait(w)
    if held:num("n") == 0 then held:create() end
    held:add("n", 1)
    held:set("order", w.order)
    held:set("Q" .. w.order, cmsgpack.pack({sid, j.call}))
  end

  local function leave_queue(w)
    local held = queue_record()
    held:set("Q" .. w.order, false)
    if held:add("n", -1) == 0 then held:drop() end
  end

  -- Who queues for a rank does not get it: that `holder` is there.
  local function refuse(w, holder)
    leave_queue(w)
    replies.fail(w, fault("RankConflictError", {group = w.join.group, rank = w.join.rank, holder = holder}))
  end

  local function holder_is_there(w)
    local seat = groups.seat_in(w.holder[3], w.join.rank)
    return seat and seat.sid == w.holder[1] and seat.seat == w.holder[2]
  end

  -- Run a function that may raise; returns its error, if it did.
  local function attempt(f, ...)
    local done, err = pcall(f, ...)
    if done then return nil end
    if type(err) == "table" and err.aiopg then return err.aiopg end
    error(err, 0)
  end

  -- Seats may have become free: who waits for one gets it, or the error that tells why not.
  local function seat_queued()
    if queue_record():num("n") == 0 then return end
    local free = {}
    for _, w in ipairs(queued()) do
      if not holder_is_there(w) then free[#free + 1] = w end
    end
    for _, w in ipairs(free) do
      leave_queue(w)
      replies.let_go(w)
      local err = attempt(function()
        check_join(w.sid, w.join) -- again: the session may have joined more meanwhile
        take_seat(seat_for(w.sid, w.join), w.join.world)
      end)
      if err then replies.fail_now(w.sid, w.call, err) end
    end
  end

  -- Put a member out: its rank has another holder from here on.
  local function fence(holder, by)
    local err = fault("FencedError", {group = group_name(), rank = holder.rank, holder = by})
    local held = session(holder.sid)
    for _, w in ipairs(replies.waiting_of(holder.sid, holder.seat)) do
      if w.kind == "join" or waits[w.kind].withdraw(w) then replies.fail(w, err) end
    end
    for _, w in ipairs(queued()) do
      if w.holder[1] == holder.sid and w.holder[2] == holder.seat then refuse(w, by) end
    end
    if not held:get("F" .. holder.seat) then held:add("nf", 1) end
    held:set("F" .. holder.seat, err)
    groups.lose(holder, "its rank was taken over by " .. by)
    unseated(holder.sid, holder.seat)
    return err
  end

  -- ---------------------------------------------------------------------------------------------------- commands

  handlers[10] = function(sid, c) -- Join
    local j = {call = c[2], seat = c[3], group = c[4], rank = c[5], world = c[6], ttl = c[7], holder = c[8]}
    check_join(sid, j)
    replies.check(sid, j.call)
    if not room:get("name") then room:set("name", j.group) end
    local _, holder = groups.holder(j.rank, j.world)
    if holder and c[9] then
      groups.check_succession(holder)
      local fenced = fence(holder, j.holder)
      take_seat(seat_for(sid, j), j.world)
      take_seats(lobbies.member_gone(holder, fenced)) -- behind the seat, or it might be refused now
    elseif holder and is_away(holder.sid) then
      queue_up(sid, j, holder)
    else
      take_seat(seat_for(sid, j), j.world)
    end
  end

  handlers[14] = function(sid, c, body) -- Enlist
    local e = {
      call = c[2], seat = c[3], group = c[4], least = c[5], most = c[6], patience = c[7], ttl = c[8], holder = c[9],
    }
    check_place(sid, e.seat, e.group, e.holder, e.ttl)
    if not (1 <= e.least and e.least <= e.most and e.most <= LIMITS.world_size) then
      usage("min_size and max_size must be 1 to %d, not %.0f and %.0f", LIMITS.world_size, e.least, e.most)
    end
    if not (e.patience >= 0) then
      usage("the patience of a rendezvous must be 0 seconds or more, not %s", text.seconds(e.patience))
    end
    if not room:get("name") then room:set("name", e.group) end
    lobbies.enlist(sid, e, body)
    membership.open_due()
  end

  handlers[15] = function(sid, c, body) -- Reform
    local seat = membership.seat(sid, c[3])
    if not life_record(seat.life):get("live") then raise("ProtocolError", {reason = "the group is not formed yet"}) end
    local r = {call = c[2], new_seat = c[4], ttl = c[5], holder = c[6]}
    check_place(sid, r.new_seat, group_name(), r.holder, r.ttl)
    take_seats(lobbies.reform(seat, r, body))
  end

  local function leave(sid, number_of_call, number)
    local seat = membership.seat(sid, number)
    for _, w in ipairs(replies.waiting_of(sid, number)) do
      local facts = replies.facts(w)
      if w.kind == "join" or waits[w.kind].withdraw(w) then replies.withdrawn(w, facts) end
    end
    groups.lose(seat, "it left the group", "left")
    unseated(sid, number)
    take_seats(lobbies.member_gone(seat))
    seat_queued()
    replies.answer_now(sid, number_of_call)
  end

  handlers[11] = function(sid, c) -- Leave
    leave(sid, c[2], c[3])
  end

  handlers[13] = function(sid, c) -- Vacate
    for _, w in ipairs(replies.waiting_of(sid, c[3])) do
      if w.kind == "queued" then
        leave_queue(w)
        replies.withdrawn(w, replies.facts(w))
        replies.answer_now(sid, c[2])
        return
      end
    end
    local seat = membership.seat(sid, c[3])
    if seat.used then -- what it did cannot be undone, so nobody can take its place
      leave(sid, c[2], c[3])
      return
    end
    local w = replies.waiting(sid, seat.call)
    if w and w.kind == "join" and w.seat == seat.seat then replies.withdrawn(w, replies.facts(w)) end
    groups.unseat(seat)
    unseated(sid, seat.seat)
    take_seats(lobbies.member_gone(seat))
    seat_queued()
    replies.answer_now(sid, c[2])
  end

  handlers[12] = function(sid, c) -- Abort
    local seat = membership.seat(sid, c[3])
    if not life_record(seat.life):get("live") then raise("ProtocolError", {reason = "the group is not formed yet"}) end
    groups.abort(seat, text.cut(c[4], LIMITS.reason_bytes))
    replies.answer_now(sid, c[2])
  end

  -- ---------------------------------------------------------------------------------------------------- sessions

  -- Open the groups whose time has come.
  function membership.open_due()
    take_seats(lobbies.open_due())
  end

  -- A session is heard of again: who waited to see whether it would come back is refused.
  function membership.back(sid)
    for _, w in ipairs(queued()) do
      if w.holder[1] == sid then refuse(w, w.holder[4]) end
    end
  end

  -- A join was taken back before it was answered.
  function membership.withdrawn(w)
    unseated(w.sid, w.seat)
    seat_queued()
  end

  -- A session is over: its members are lost. For a while it is known why: what it says again must not take effect
  -- again.
  function membership.end_session(sid, reason)
    local held = session(sid)
    call("SET", P .. ":over:" .. sid, reason, "EX", OVER_SECONDS)
    call("ZREM", P .. ":leases", sid)
    if not held then return end
    local seats = {}
    for _, item in ipairs(held:under("M", function(_, kept) return (struct.unpack(SEAT, kept)) end)) do
      seats[#seats + 1] = read_seat(sid, tonumber(item[1]), item[2])
      held:set("M" .. item[1], false)
    end
    held:set("ns", 0)
    held:set("nf", 0)
    for _, w in ipairs(replies.waiting_of(sid)) do
      if w.kind ~= "join" then waits[w.kind].withdraw(w) end
    end
    for _, seat in ipairs(seats) do
      groups.lose(seat, reason)
      take_seats(lobbies.member_gone(seat))
    end
    if room:get("keys") then keys.end_owner("", sid .. ":-1") end
    replies.end_session(sid)
    seat_queued()
  end

  waits.queued = {
    facts = function(w) return {}, {w.join.rank} end,
    withdraw = function(w)
      leave_queue(w)
      return true
    end,
  }
end)

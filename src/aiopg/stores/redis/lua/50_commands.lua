-- The commands that members give beside those of membership, and those about every call.

state.part(function()
  local SWEEPS_PER_TTL = 8         -- expired data is looked for this often in the shortest lifetime in use
  local SWEEP_SECONDS_LEAST = 0.05 -- and never more often than this

  -- When what waits in a life is to be looked at again.
  function state.next_sweep(held)
    return now + math.max(held:num("ttl", math.huge) / SWEEPS_PER_TTL, SWEEP_SECONDS_LEAST)
  end

  -- Raises StoreFullError if so many more bytes are too many for a life; sees to it that they expire.
  local function make_room(life, size)
    groups.check_bytes(life, size)
    state.due_at(state.next_sweep(life_record(life)))
  end

  handlers[20] = function(sid, c, body) -- Put
    local dst, tag = c[4], c[5]
    local seat = membership.working_seat(sid, c[3], tag)
    local absent = groups.absent(seat.life, dst)
    if absent then throw(absent) end
    make_room(seat.life, #body)
    mailboxes.put(seat.life, mailboxes.address_of(seat.rank, dst, tags.key(tag)), body, c[2], now + seat.ttl)
    replies.answer_now(sid, c[2])
  end

  handlers[21] = function(sid, c) -- TakeBack
    local dst, tag = c[4], c[5]
    local seat = membership.working_seat(sid, c[3], tag)
    local there = mailboxes.take_back(seat.life, mailboxes.address_of(seat.rank, dst, tags.key(tag)), c[6])
    replies.answer_now(sid, c[2], cmsgpack.pack(not there))
  end

  handlers[22] = function(sid, c) -- Take
    local src, tag = c[4], c[5]
    local seat = membership.working_seat(sid, c[3], tag)
    mailboxes.take(seat, c[2], mailboxes.address_of(src, seat.rank, tags.key(tag)), groups.absent(seat.life, src))
  end

  handlers[30] = function(sid, c, body) -- Arrive
    local tag, root, needs = c[4], c[7], c[9]
    local seat = membership.working_seat(sid, c[3], tag)
    local world = life_record(seat.life):num("world")
    if needs == NEEDS_ROOT and not (root >= 0 and root < world) then
      usage("root must be 0 to %d, not %.0f", world - 1, root)
    end
    if not (needs >= NEEDS_NOTHING and needs <= NEEDS_ALL_TOLD) then
      raise("ProtocolError", {reason = string.format("no arrival needs %.0f", needs)})
    end
    if c[10] ~= 0 then make_room(seat.life, #body) end
    rounds.arrive(seat, c, tags.key(tag), body)
  end

  handlers[40] = function(sid, c) -- Cancel
    local w = replies.waiting(sid, c[2])
    if not w then return end -- it has had its event already
    local facts = replies.facts(w)
    if waits[w.kind].withdraw(w) then
      replies.withdrawn(w, facts)
      if w.kind == "join" then membership.withdrawn(w) end
    end
  end

  handlers[45] = function(sid, c) -- Void
    replies.withdrawn_now(sid, c[2])
  end

  handlers[41] = function(sid, c) -- Inquire
    local w = replies.waiting(sid, c[3])
    replies.answer_now(sid, c[2], w and replies.facts(w) or "\192")
  end

  handlers[42] = function(sid, c) -- Expire
    local life = membership.working_seat(sid, c[3]).life
    local held, count = life_record(life), 0
    if now >= held:num("expired_at") + SWEEP_SECONDS_LEAST then -- it looks at all that the group holds
      held:set("expired_at", now)
      count = mailboxes.expire(life) + rounds.expire(life)
    end
    replies.answer_now(sid, c[2], cmsgpack.pack(count))
  end

  handlers[44] = function(sid, c) -- Watch
    local seat = membership.seat(sid, c[3])
    if not life_record(seat.life):get("live") then raise("ProtocolError", {reason = "the group is not formed yet"}) end
    history.watch(seat, c[2], c[4])
  end
end)

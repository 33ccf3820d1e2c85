-- What comes with time: leases that are over, data and keys that expire, lobbies that open.

rare.part(function()
  local REFRESHES = 4 -- times to live are renewed so often in one

  -- Spaces of keys that were asked for.
  local function spaces()
    local found = {}
    if room:get("keys") then found[1] = "" end
    for _, life in ipairs(lives()) do
      if life_record(life):get("keys") then found[#found + 1] = tostring(life) end
    end
    return found
  end

  local function end_unheard()
    while true do
      local over = call("ZRANGEBYSCORE", P .. ":leases", "-inf", clock, "LIMIT", 0, 100)
      if #over == 0 then return end
      for _, sid in ipairs(over) do
        local held = session(sid)
        membership.end_session(sid, string.format(
          "nothing was heard of it for %.3g s", held and clock - held:num("seen") or 0
        ))
      end
    end
  end

  local function sweep()
    for _, life in ipairs(lives()) do
      local held = life_record(life)
      if held:num("mb") + held:num("rb") > 0 and held:num("swept") <= now then
        held:set("swept", state.next_sweep(held))
        mailboxes.expire(life)
        rounds.expire(life)
      end
    end
  end

  -- Redis forgets what nobody touches: what is in use gets its time to live anew, some times in it.
  local function refresh()
    if now < room:num("fresh") + ROOM_SECONDS / REFRESHES then return end
    room:set("fresh", now)
    local renew = function(suffix) call("EXPIRE", P .. suffix, ROOM_SECONDS) end
    for _, suffix in ipairs({":room", ":leases", ":lobby", ":queue"}) do renew(suffix) end
    for _, sid in ipairs(call("ZRANGE", P .. ":leases", 0, -1)) do renew(":s:" .. sid) end
    for _, life in ipairs(lives()) do
      for _, letter in ipairs({":i:", ":j:", ":l:", ":anew:"}) do renew(letter .. life) end
      for _, round in ipairs(rounds.open_rounds(life)) do renew(":r:" .. life .. ":" .. round.id) end
    end
    for _, space in ipairs(spaces()) do keys.refresh(space) end
  end

  -- When the room is to be looked at next.
  local function next_due()
    local first = call("ZRANGE", P .. ":leases", 0, 0, "WITHSCORES")
    local due = math.min(first[2] and now + tonumber(first[2]) - clock or math.huge, lobbies.next_due())
    for _, life in ipairs(lives()) do
      local held = life_record(life)
      if held:num("mb") + held:num("rb") > 0 then due = math.min(due, math.max(held:num("swept"), now)) end
    end
    for _, space in ipairs(spaces()) do due = math.min(due, keys.next_end(space)) end
    return due
  end

  -- Do what is due.
  function rare.run_timers()
    end_unheard()
    sweep()
    for _, space in ipairs(spaces()) do keys.run_timers(space) end
    membership.open_due()
    refresh()
    local due = next_due()
    room:set("due", due < math.huge and due)
  end
end)

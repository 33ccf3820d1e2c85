-- How a group forms of whoever comes, and forms anew when members come or go. The rules are those of `_core.lobbies`.
--
-- The lobby is the record ":lobby": least, most, patience, due (when it opens a group, if none is live then), n, order
-- and A<order>, each a call that waits there. Those who want a life to form anew are in ":anew:" <life>: n and A<rank>.
-- An applicant is {sid, seat, call, ttl, holder, metadata}.

rare.part(function()
  local function lobby_record()
    return record(":lobby")
  end

  local function anew_record(life)
    return record(":anew:" .. life)
  end

  local function unpack_applicant(kept)
    local it = cmsgpack.unpack(kept)
    return {sid = it[1], seat = it[2], call = it[3], ttl = it[4], holder = it[5], metadata = it[6]}
  end

  -- Those in such a record, in order.
  local function applicants_in(held)
    local found = {}
    for _, item in ipairs(held:under("A")) do
      local applicant = unpack_applicant(item[2])
      applicant.place = item[1]
      found[#found + 1] = applicant
    end
    return found
  end

  -- A call waits for a place: `place` is its field's name behind the "A" in `held`.
  local function admit(held, place, applicant, life)
    if #replies.waiting_of(applicant.sid, applicant.seat) > 0 then
      raise("ProtocolError", {reason = string.format("seat %.0f is asked for already", applicant.seat)})
    end
    replies.wait({
      sid = applicant.sid, seat = applicant.seat, call = applicant.call, kind = "place", life = life, place = place,
    })
    if held:num("n") == 0 then held:create() end
    held:add("n", 1)
    held:set("A" .. place, cmsgpack.pack({
      applicant.sid, applicant.seat, applicant.call, applicant.ttl, applicant.holder, applicant.metadata,
    }))
  end

  local function check_metadata(metadata)
    if #metadata > LIMITS.metadata_bytes then
      raise("PayloadTooLargeError", {size = #metadata, limit = LIMITS.metadata_bytes})
    end
  end

  local function set_due(lobby, due)
    lobby:set("due", due)
    if due then state.due_at(due) end
  end

  -- Take one out of such a record, which is no more where it was the last.
  local function take_out(held, place)
    held:set("A" .. place, false)
    if held:add("n", -1) == 0 then held:drop() end
  end

  local function remove(w)
    if w.life then
      take_out(anew_record(w.life), w.place)
      return
    end
    local lobby = lobby_record()
    take_out(lobby, w.place)
    if lobby:num("n") < lobby:num("least") then lobby:set("due", false) end
  end

  -- Open an incarnation of these, and tell each its place and what all said of themselves.
  local function seat_all(applicants)
    local seats, said = {}, {}
    for i, one in ipairs(applicants) do
      seats[i] = {
        sid = one.sid, seat = one.seat, call = one.call, ttl = one.ttl, holder = one.holder, rank = i - 1, used = false,
      }
      said[i] = one.metadata
    end
    if #lives() >= LIMITS.groups then
      for _, one in ipairs(applicants) do
        replies.fail(one, fault("StoreFullError", {limit = "groups", allowed = LIMITS.groups, holder = ""}))
      end
      return {}
    end
    groups.open_with(seats)
    local shared = replies.shared(pack.parts(said), #seats)
    for i, one in ipairs(applicants) do
      replies.answer(one, shared, nil, struct.pack(">I4I4i8", i - 1, #seats, seats[i].life))
    end
    return seats
  end

  -- Take the first of those in the lobby.
  local function take_first(most)
    local lobby, taken = lobby_record(), {}
    for _, one in ipairs(applicants_in(lobby)) do
      if #taken >= most then break end
      taken[#taken + 1] = one
      take_out(lobby, one.place)
    end
    if lobby:num("n") < lobby:num("least") then lobby:set("due", false) end
    return taken
  end

  local function form_anew(life)
    local anew = anew_record(life)
    if anew:num("n") ~= life_record(life):num("ns") then return {} end
    local applicants, lobby = applicants_in(anew), lobby_record()
    anew:drop()
    if lobby:num("n") > 0 and #applicants + lobby:num("n") >= lobby:num("least") then
      for _, one in ipairs(take_first(math.max(lobby:num("most") - #applicants, 0))) do
        applicants[#applicants + 1] = one
      end
    end
    return seat_all(applicants)
  end

  -- Somebody wants a place. Raises.
  function lobbies.enlist(sid, e, metadata)
    local lobby = lobby_record()
    if lobby:num("n") > 0 and (lobby:num("least") ~= e.least or lobby:num("most") ~= e.most) then
      usage("others wait for group %s with min_size %.0f and max_size %.0f, not %.0f and %.0f", text.quoted(e.group),
        lobby:num("least"), lobby:num("most"), e.least, e.most)
    end
    check_metadata(metadata)
    local place = lobby:num("order") + 1
    local is_first = lobby:num("n") == 0
    admit(lobby, place, {
      sid = sid, seat = e.seat, call = e.call, ttl = e.ttl, holder = e.holder, metadata = metadata,
    })
    lobby:set("order", place)
    if is_first then
      lobby:set("least", e.least)
      lobby:set("most", e.most)
      lobby:set("patience", e.patience)
    end
    local count = lobby:num("n")
    if count < e.least then
      lobby:set("due", false)
    else
      set_due(lobby, count >= e.most and now or now + lobby:num("patience"))
    end
    for _, life in ipairs(lives()) do
      local held = life_record(life)
      if held:get("live") and held:get("last") ~= "waiting" then history.add(life, "waiting", -1, e.holder) end
    end
  end

  -- A member wants its group to form anew. Returns the seats that were taken. Raises.
  function lobbies.reform(seat, r, metadata)
    local anew = anew_record(seat.life)
    if anew:get("A" .. seat.rank) then
      usage("rank %d of group %s asked already for it to form anew", seat.rank, text.quoted(group_name()))
    end
    check_metadata(metadata)
    admit(anew, seat.rank, {
      sid = seat.sid, seat = r.new_seat, call = r.call, ttl = r.ttl, holder = r.holder, metadata = metadata,
    }, seat.life)
    return form_anew(seat.life)
  end

  -- A member has gone, for whom the others may have waited. Returns the seats that were taken. `why`: what is told to
  -- that member, where it had asked for the group to form anew itself.
  function lobbies.member_gone(seat, why)
    local anew = anew_record(seat.life)
    if anew:num("n") == 0 then return {} end
    local kept = anew:get("A" .. seat.rank)
    if kept then
      local gone = unpack_applicant(kept)
      take_out(anew, seat.rank)
      replies.fail(gone, why or fault("GroupClosedError", {
        message = string.format("group %s was left while it was to form anew", text.quoted(group_name())),
      }))
    end
    return anew:num("n") > 0 and form_anew(seat.life) or {}
  end

  -- How many places a session waits for.
  function lobbies.asked_by(sid)
    local count = 0
    for _, w in ipairs(replies.waiting_of(sid)) do
      if w.kind == "place" then count = count + 1 end
    end
    return count
  end

  -- When the lobby may open a group; infinite if it is not to.
  function lobbies.next_due()
    local due = #lives() == 0 and lobby_record():get("due")
    return due and tonumber(due) or math.huge
  end

  -- Open the group whose time has come. Returns the seats that were taken.
  function lobbies.open_due()
    if lobbies.next_due() > now then return {} end
    return seat_all(take_first(lobby_record():num("most")))
  end

  -- Who waits for the group to form, for people.
  function lobbies.describe()
    local lobby, waiting = lobby_record(), {}
    if lobby:num("n") == 0 then return "\144" end
    for i, one in ipairs(applicants_in(lobby)) do waiting[i] = one.holder end
    return pack.array({cmsgpack.pack({group = group_name(), waiting = waiting, awaited = lobby:num("least")})})
  end

  waits.place = {
    facts = function(w)
      local arrived, missing = {}, {}
      if w.life then
        local anew, fields = anew_record(w.life):all(), life_record(w.life):all()
        for rank = 0, life_record(w.life):num("world") - 1 do
          if anew["A" .. rank] then
            arrived[#arrived + 1] = rank
          elseif fields["S" .. rank] then
            missing[#missing + 1] = rank
          end
        end
        return arrived, missing
      end
      local lobby = lobby_record()
      local count = lobby:num("n")
      for k = 0, count - 1 do arrived[k + 1] = k end
      for k = count, lobby:num("least") - 1 do missing[#missing + 1] = k end
      return arrived, missing
    end,
    withdraw = function(w)
      remove(w)
      return true
    end,
  }
end)

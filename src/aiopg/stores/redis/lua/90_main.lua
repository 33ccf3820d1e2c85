-- One call: what is due, then what the session says, then what it is told.

local main

state.part(function()
  local RENEWALS = 16      -- a lease is written anew when so small a part of it is over
  local KEY_COMMANDS = 60  -- kinds of commands from here on are about keys
  local FREQUENT = {[20] = true, [21] = true, [22] = true, [30] = true} -- kinds that do without what is `rare`

  -- Milliseconds until the room is to be looked at; -1 if nothing is to come.
  local function due_ms()
    local due = room:get("due")
    return due and math.max(math.ceil((tonumber(due) - now) * 1000), 0) or -1
  end

  -- The session is heard of.
  local function renew(held, sid, grace)
    if held:num("grace") == grace and clock - held:num("seen") < grace / RENEWALS then return end
    held:set("grace", grace)
    held:set("seen", clock)
    if call("ZADD", P .. ":leases", clock + grace, sid) == 1 then call("EXPIRE", P .. ":leases", ROOM_SECONDS) end
    state.due_at(now + grace)
  end

  local function refuse(_, c)
    raise("ProtocolError", {reason = "a store takes no command of kind " .. tostring(c[1])})
  end

  local function apply(sid, head, body)
    local c = cmsgpack.unpack(head)
    if c[1] >= KEY_COMMANDS then
      keys.ready()
    elseif not FREQUENT[c[1]] then
      rare.fill()
    end
    local handler = handlers[c[1]]
    local done, err = pcall(handler or refuse, sid, c, body)
    if done then return end
    if type(err) ~= "table" or not err.aiopg then error(err, 0) end -- a fault of ours, or of redis: nothing is written
    replies.fail_now(sid, c[2], err.aiopg)
  end

  local UNKNOWN = "the store does not know this session: it was not heard of for too long, or the store lost its state"
  local FELL_BACK = "the store lost what it had acknowledged: it fell back to an older state"

  -- Why a session that is not there is not there; nil if it may begin.
  local function reason_of_loss(sid, opening)
    local reason = call("GET", P .. ":over:" .. sid)
    return reason or not opening and UNKNOWN or nil
  end

  local function grace_of(milliseconds)
    return math.min(math.max(tonumber(milliseconds) / 1000, 0.001), LIMITS.grace_seconds)
  end

  local function open_session(sid)
    local held = record(":s:" .. sid):create()
    for _, field in ipairs({"last", "event", "freed", "mark", "seen", "grace"}) do held:set(field, 0) end
    return held
  end

  -- A session speaks: what it says, and all events that it has not acknowledged.
  local function run(sid, header, args)
    local first, received, grace_ms, holder, opening, mark = unpack(header)
    local held, grace = session(sid), grace_of(grace_ms)
    if not held then
      local reason = reason_of_loss(sid, opening)
      if reason then return {"lost", reason} end
      held = open_session(sid)
      held:set("holder", holder)
    elseif is_away(sid) then
      rare.fill()
      membership.back(sid)
    end
    local last = held:num("last")
    if first > last + 1 or received > held:num("event") then return {"lost", FELL_BACK} end
    if mark and received > 0 and received >= held:num("freed") and replies.mark(sid, received) ~= mark then
      return {"lost", FELL_BACK}
    end
    renew(held, sid, grace)
    replies.free(sid, received, mark or 0)
    for i = 4, #args, 2 do
      local number = first + (i - 4) / 2
      if number > last then
        apply(sid, args[i], args[i + 1])
        last = number
      end
    end
    if last > held:num("last") then held:set("last", last) end
    keys.leave()
    local answer = {"ok", last, held:num("event"), due_ms()}
    for _, event in ipairs(replies.unheard(sid)) do answer[#answer + 1] = event end
    return answer
  end

  -- A session is heard of, and says nothing.
  local function beat(sid, grace)
    local held = session(sid)
    if not held then return {"lost", reason_of_loss(sid, false)} end
    if is_away(sid) then
      rare.fill()
      membership.back(sid)
    end
    renew(held, sid, grace)
    return {"ok"}
  end

  local STRANGERS_SECONDS = 1 -- so far time goes on for leases by a call that renews none

  function main(prefixes, args)
    local verb, sid = args[1], args[2]
    local header = verb == "run" and cmsgpack.unpack(args[3])
    local grace = header and grace_of(header[3]) or verb == "beat" and grace_of(args[3])
    local opening = header and header[5]
    if not state.begin(prefixes[1], grace and grace / 2 or STRANGERS_SECONDS, opening) then
      if grace then return {"lost", reason_of_loss(sid, false)} end
      if verb == "describe" then return "" end
      call("SET", P .. ":over:" .. sid, args[3], "EX", OVER_SECONDS)
      return {"ok"}
    end
    replies.begin()
    keys.enter()
    if now >= room:num("due", math.huge) then
      rare.fill()
      rare.run_timers()
    end
    local answer
    if verb == "run" then
      answer = run(sid, header, args)
    elseif verb == "beat" then
      answer = beat(sid, grace)
    elseif verb == "end" then
      rare.fill()
      membership.end_session(sid, args[3])
      answer = {"ok"}
    else
      rare.fill()
      answer = state.describe()
    end
    keys.leave()
    replies.publish(verb == "run" and answer[1] == "ok" and sid)
    state.finish()
    return answer
  end
end)

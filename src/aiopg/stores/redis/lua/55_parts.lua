-- Parts that few calls need: a script runs from its first line at each call, so what they define is defined when it is
-- needed. (In a function library that is once.)

local rare = {} -- what is about joining and leaving, and what is due

local function parts_of_engine(own)
  local parts, filled = {}, false

  -- Have a file's part filled in when it is needed.
  function own.part(fill)
    parts[#parts + 1] = fill
  end

  -- It is needed now.
  function own.fill()
    if filled then return end
    filled = true
    for _, fill in ipairs(parts) do fill() end
  end
end

parts_of_engine(rare)
parts_of_engine(keys)

local keys_used -- whether this call uses keys

-- This call uses keys.
function keys.ready()
  if keys_used then return end
  keys.fill()
  keys_used = true
  keys.begin()
end

-- Begin a call: where the room has keys, it uses them.
function keys.enter()
  keys_used = false
  if room:get("keyed") then keys.ready() end
end

-- End it: what it changed of keys is written. Where something is done behind that, it may be called once more.
function keys.leave()
  if keys_used then keys.finish() end
end

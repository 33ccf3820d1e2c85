-- State: what the other files keep in redis, and the words they share.
--
-- All files are one Lua chunk. In a script it runs from its first line at each call, in a function library once: so the
-- first lines of a file do no work, and what belongs to one call is set by `state.begin`.
--
-- A record is a hash whose fields are read when they are asked for and written when the call ends. What goes wrong
-- before that leaves nothing behind.

local ROOM_SECONDS = 86400          -- what is not touched for so long is forgotten by redis
local OVER_SECONDS = 3600           -- so long it is known why a session is over
local LIMITS = {
  payload_bytes = 64 * 1024 * 1024, -- redis serves nobody else while it copies one
  group_bytes = 1024 * 1024 * 1024,
  store_bytes = 1024 * 1024 * 1024, -- of the store's own keys: no room knows of the others
  group_messages = 262144,
  mailbox_messages = 65536,
  open_rounds = 65536,
  waiting_calls = 4096,
  name_bytes = 128,
  tag_bytes = 64,
  metadata_bytes = 4096,
  reason_bytes = 1024,
  world_size = 16384,
  keys = 131072,
  key_bytes = 1024,
  value_bytes = 16 * 1024 * 1024,
  keys_per_call = 1024,
  queue_items = 65536,
  kept_changes = 4096,
  kept_changes_bytes = 4 * 1024 * 1024,
  groups = 4096,
  seats = 1024,
  grace_seconds = 3600,
}

local call       -- redis.call
local P          -- prefix of every key of this room
local now        -- seconds; never runs backwards in a room
local clock      -- seconds in which leases count, see `state.begin`
local stamp      -- microseconds: when this call was made
local room       -- the room's own record
local records    -- by key behind P, the records that this call has looked at
local state = {}

-- Do now what a file does. (A function in a function finds the names round it at once. Names of the outermost level are
-- looked for one behind the other whenever a function is made of them, that is at each call of a script.)
function state.part(fill)
  fill()
end

local handlers = {} -- by the number of a kind of command: function(sid, command, body)
local waits = {}    -- by the kind of a waiting call: its `facts` and `withdraw`
local keys = {}     -- spaces of keys (6*.lua)

-- ---------------------------------------------------------------------------------------------------- records

local Record = {}
Record.__index = Record

-- The record kept under the key P .. `suffix`. (Tables are made in their size: one that grows as it is filled costs as
-- much as a command of redis.)
local function record(suffix)
  local held = records[suffix]
  if not held then
    held = setmetatable({
      key = P .. suffix,
      vals = {},                       -- fields that are known; false where there is none
      changed = {nil, nil, nil, nil},  -- names of fields that are to be written, some more than once
      count = 0,                       -- how many those are
      blank = false,                   -- redis has nothing of it
      born = false,                    -- it is made in this call
      whole = false,                   -- all of it is known
    }, Record)
    records[suffix] = held
  end
  return held
end

-- Say that there is no such record yet: nothing of it is read, and it gets its time to live when it is written.
function Record:create()
  self.blank, self.born, self.vals, self.count = true, true, {}, 0
  return self
end

-- Read fields at once that will be asked for.
function Record:load(...)
  if self.blank or self.whole then return self end
  local vals, wanted, count = self.vals, {}, 0
  for _, field in ipairs({...}) do
    if vals[field] == nil then
      count = count + 1
      wanted[count] = field
    end
  end
  if count > 0 then
    local found = call("HMGET", self.key, unpack(wanted))
    for i = 1, count do vals[wanted[i]] = found[i] end
  end
  return self
end

-- A field, or false.
function Record:get(field)
  local value = self.vals[field]
  if value == nil then
    value = not self.blank and not self.whole and call("HGET", self.key, field)
    self.vals[field] = value
  end
  return value
end

-- A field that holds a number; `otherwise` (0) where there is none.
function Record:num(field, otherwise)
  local value = self:get(field)
  return value and tonumber(value) or otherwise or 0
end

-- Set a field; false removes it.
function Record:set(field, value)
  local count = self.count
  self.vals[field] = value
  if self.changed[count] ~= field then
    self.changed[count + 1], self.count = field, count + 1
  end
end

-- Add to a field that holds a number. Returns the sum.
function Record:add(field, more)
  local sum = self:num(field) + more
  self:set(field, sum)
  return sum
end

-- Every field by name. As large as the record is: for what is rare.
function Record:all()
  if not self.blank and not self.whole then
    self:flush()
    local vals, flat = self.vals, call("HGETALL", self.key)
    for i = 1, #flat, 2 do vals[flat[i]] = flat[i + 1] end
    self.whole = true
  end
  local found = {}
  for field, value in pairs(self.vals) do
    if value then found[field] = value end
  end
  return found
end

-- The fields whose names begin with `letter` (a capital, as no other field does), without it: {{name, value}, ...} in
-- the order of what `place` gives for name and value; without it, of the numbers that they are named by.
function Record:under(letter, place)
  local found, byte = {}, string.byte(letter)
  for field, value in pairs(self:all()) do
    if string.byte(field) == byte then
      local name = string.sub(field, 2)
      found[#found + 1] = {name, value, place and place(name, value) or tonumber(name)}
    end
  end
  table.sort(found, function(a, b) return a[3] < b[3] end)
  return found
end

-- The record is no more.
function Record:drop()
  call("UNLINK", self.key)
  self.blank, self.born, self.vals, self.count = true, false, {}, 0
end

local CHUNK = 1000 -- arguments at a time: Lua's stack holds eight thousand

local function in_chunks(command, key, list, count)
  for i = 1, count, CHUNK do call(command, key, unpack(list, i, math.min(i + CHUNK - 1, count))) end
end

-- Write what was changed.
function Record:flush()
  local count = self.count
  if count == 0 then return end
  self.count = 0
  if self.blank and not self.born then return end -- it is no more
  local vals, changed, set, gone, n, m = self.vals, self.changed, {nil, nil, nil, nil, nil, nil, nil, nil}, nil, 0, 0
  for i = 1, count do
    local field = changed[i]
    local value = vals[field]
    if value ~= false then
      set[n + 1], set[n + 2] = field, value
      n = n + 2
    elseif not self.born then
      gone = gone or {}
      m = m + 1
      gone[m] = field
    end
  end
  if n > 0 then in_chunks("HSET", self.key, set, n) end
  if m > 0 then in_chunks("HDEL", self.key, gone, m) end
  if self.born and n > 0 then
    call("EXPIRE", self.key, ROOM_SECONDS)
    self.born, self.blank, self.whole = false, false, true
  end
end

-- ---------------------------------------------------------------------------------------------------- one call

-- Begin a call in the room of this prefix. False if there is no such room, and it is not to be made.
--
-- Leases count in `clock`, which goes on by what passed since the last call, and by `most` seconds at most: a server
-- that was away for a while must not take all members for lost but the first that comes back.
function state.begin(prefix, most, is_to_make)
  call, P, records = redis.call, prefix, {}
  local time = call("TIME")
  stamp = tonumber(time[1]) * 1000000 + tonumber(time[2])
  room = record(":room")
  local found = call("HMGET", room.key, "now", "clock", "due", "keyed", "name", "ahead")
  room.vals = {now = found[1], clock = found[2], due = found[3], keyed = found[4], name = found[5], ahead = found[6]}
  now = stamp / 1000000 + room:num("ahead")
  local before = room:num("now")
  if before == 0 then
    if not is_to_make then return false end
    room:create()
    -- No number of an incarnation comes again, though the room was forgotten meanwhile: they begin with the seconds
    -- since 2026.
    room:set("number", math.max(math.floor(now) - 1767225600, 1))
    room:set("fresh", now)
    before = now
  end
  if now < before then -- the server's clock was set back, or this is another server: time goes on from here
    room:set("ahead", room:num("ahead") + before - now)
    now = before
  end
  clock = room:num("clock") + math.min(now - before, most)
  room:set("now", now)
  room:set("clock", clock)
  room:flush() -- redis refuses this one where it has no memory left, before anything is changed
  return true
end

-- End it: write what it changed, and keep nothing until the next one.
function state.finish()
  for _, held in pairs(records) do held:flush() end
  room, records = nil, nil
end

-- The room has to be looked at again then, at the latest.
function state.due_at(time)
  local due = room:get("due")
  if not due or time < tonumber(due) then room:set("due", time) end
end

-- ------------------------------------------------------------------------------------------------------ errors

-- An error is its own encoding: [name of its class, {field: value}].
local function fault(class, fields)
  return "\146" .. cmsgpack.pack(class) .. cmsgpack.pack(fields)
end

-- Have the command under way fail with an error; whoever does so has changed nothing yet.
local function throw(err)
  error({aiopg = err}, 0)
end

local function raise(class, fields)
  throw(fault(class, fields))
end

local function usage(...)
  raise("UsageError", {message = string.format(...)})
end

local function store_full(limit, holder)
  raise("StoreFullError", {limit = limit, allowed = LIMITS[limit], holder = holder or ""})
end

-- ------------------------------------------------------------------------------------------- texts and numbers

local text = {}

-- The beginning of a text, at most so many bytes, that ends with a whole character.
function text.cut(value, most)
  if #value <= most then return value end
  while most > 0 and string.byte(value, most + 1) >= 128 and string.byte(value, most + 1) < 192 do most = most - 1 end
  return string.sub(value, 1, most)
end

local ESCAPES = {["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\\"] = "\\\\"}

-- A text in quotes, for people: as Python writes it, but for what is not ASCII.
function text.quoted(value)
  local quote = string.find(value, "'", 1, true) and not string.find(value, '"', 1, true) and '"' or "'"
  local escaped = string.gsub(value, "[%c\\']", function(c)
    if c == "'" then return quote == "'" and "\\'" or c end
    return ESCAPES[c] or string.format("\\x%02x", string.byte(c))
  end)
  return text.cut(quote .. escaped .. quote, 200)
end

-- A number of seconds as Python writes it.
function text.seconds(value)
  if value == math.huge then return "inf" end
  if value == -math.huge then return "-inf" end
  if value ~= value then return "nan" end
  if value == math.floor(value) and math.abs(value) < 1e15 then return string.format("%.1f", value) end
  for digits = 15, 16 do
    local short = string.format("%." .. digits .. "g", value)
    if tonumber(short) == value then return short end
  end
  return string.format("%.17g", value)
end

-- An integer of 64 bits comes as {its upper half, its lower half} where a double is too small for it.
function text.integer(upper, lower)
  local negative = upper < 0
  if negative then
    upper, lower = -upper - (lower > 0 and 1 or 0), lower > 0 and 4294967296 - lower or 0
  end
  local digits = ""
  repeat
    local high = math.floor(upper / 10)
    local rest = (upper - high * 10) * 4294967296 + lower
    local low = math.floor(rest / 10)
    digits = string.format("%d", rest - low * 10) .. digits
    upper, lower = high, low
  until upper == 0 and lower == 0
  return (negative and "-" or "") .. digits
end

-- A tag as it stands in keys and fields: "i" and the number, "x" and its halves, or "s" and the text.
local tags = {}

function tags.key(tag)
  if type(tag) == "number" then return "i" .. string.format("%.0f", tag) end
  if type(tag) == "string" then return "s" .. tag end
  return string.format("x%.0f,%.0f", tag[1], tag[2])
end

-- The MessagePack of such a tag.
function tags.pack(key)
  local kind, rest = string.sub(key, 1, 1), string.sub(key, 2)
  if kind == "i" then return cmsgpack.pack(tonumber(rest)) end
  if kind == "s" then return cmsgpack.pack(rest) end
  local upper, lower = string.match(rest, "^(.-),(.*)$")
  return "\211" .. struct.pack(">i4I4", tonumber(upper), tonumber(lower))
end

-- Such a tag for people.
function tags.text(key)
  local kind, rest = string.sub(key, 1, 1), string.sub(key, 2)
  if kind == "i" then return rest end
  if kind == "s" then return text.quoted(rest) end
  local upper, lower = string.match(rest, "^(.-),(.*)$")
  return text.integer(tonumber(upper), tonumber(lower))
end

local pack = {}

-- What a map or an array of so many items begins with; `few` is the byte for none, `many` that for over 15.
local function head_of(count, few, many)
  if count < 16 then return string.char(few + count) end
  if count < 65536 then return string.char(many) .. struct.pack(">I2", count) end
  return string.char(many + 1) .. struct.pack(">I4", count)
end

-- A map of MessagePack, of {key, value, key, value, ...} that are encoded already.
function pack.map(items)
  return head_of(#items / 2, 128, 222) .. table.concat(items)
end

-- An array of values that are encoded already.
function pack.array(items)
  return head_of(#items, 144, 220) .. table.concat(items)
end

-- Bytes: cmsgpack writes every string as a text.
function pack.bytes(value)
  local size = #value
  local head = size < 256 and "\196" .. string.char(size) or size < 65536 and "\197" .. struct.pack(">I2", size)
    or "\198" .. struct.pack(">I4", size)
  return head .. value
end

-- Parts in one body: a table of their lengths as u32, and then they (see `_core.parts`).
function pack.parts(parts)
  local lengths = {}
  for i, part in ipairs(parts) do lengths[i] = struct.pack(">I4", #part) end
  return table.concat(lengths) .. table.concat(parts)
end

-- The parts of such a body. Raises ProtocolError.
local function split_parts(body, count)
  local start, parts = 4 * count, {}
  if #body < start then
    raise("ProtocolError", {reason = string.format("body of %d bytes holds no table of %d lengths", #body, count)})
  end
  local at = start + 1
  for i = 1, count do
    local size = struct.unpack(">I4", body, 4 * i - 3)
    parts[i] = string.sub(body, at, at + size - 1)
    at = at + size
  end
  if at ~= #body + 1 then
    raise("ProtocolError", {
      reason = string.format("body of %d bytes does not hold %d parts of %.0f bytes", #body, count, at - 1 - start),
    })
  end
  return parts
end

-- More of MessagePack and of texts: integers of 64 bits, and what tells of bytes.

pack.none = "\192"

keys.part(function()
  function pack.bool(is)
    return is and "\195" or "\194"
  end

  -- A number of eight bytes whose order is theirs.
  function pack.eight(n)
    return struct.pack(">I8", n)
  end

  -- An integer of 64 bits, given in two halves: high * 10^10 + low, and whether it is below zero.
  function pack.wide(negative, high, low)
    if high < 900000 then -- a double holds it
      local n = high * 1e10 + low
      return cmsgpack.pack(negative and -n or n)
    end
    local words = {}
    for place = 4, 1, -1 do
      local rest = high % 65536 * 1e10 + low
      high, low, words[place] = math.floor(high / 65536), math.floor(rest / 65536), rest % 65536
    end
    if negative then -- two's complement
      local carry = 1
      for place = 4, 1, -1 do
        local word = 65535 - words[place] + carry
        carry, words[place] = math.floor(word / 65536), word % 65536
      end
    end
    return (negative and "\211" or "\207") .. struct.pack(">I2I2I2I2", unpack(words))
  end

  -- Bytes in quotes, for people.
  function text.bytes(bytes)
    local single, double = bytes:find("'", 1, true), bytes:find('"', 1, true)
    local quote = single and not double and '"' or "'"
    local escaped = bytes:gsub("[%z\1-\31\127-\255\\']", function(c)
      if c == "'" then return double and "\\'" or c end
      return ESCAPES[c] or ("\\x%02x"):format(c:byte())
    end)
    return "b" .. quote .. escaped .. quote
  end

  -- How many characters a text has.
  function text.length(value)
    if not value:find("[\128-\255]") then return #value end
    local _, inner = value:gsub("[\128-\191]", "")
    return #value - inner
  end

  -- Its first characters.
  function text.first(value, most)
    if #value <= most then return value end
    local at = 0
    for _ = 0, most do
      at = value:find("[^\128-\191]", at + 1)
      if not at then return value end
    end
    return value:sub(1, at - 1)
  end

  -- Whether bytes are UTF-8, as strictly as Python sees it.
  function text.is_utf8(bytes)
    local at, size = bytes:find("[\128-\255]"), #bytes
    while at and at <= size do
      local first = bytes:byte(at)
      local more = first < 128 and 0 or first < 194 and -1 or first < 224 and 1 or first < 240 and 2 or 3
      if more < 0 or first > 244 or at + more > size then return false end
      local least = first == 224 and 160 or first == 240 and 144 or 128
      local most = first == 237 and 159 or first == 244 and 143 or 191
      for place = at + 1, at + more do
        local byte = bytes:byte(place)
        if byte < least or byte > most then return false end
        least, most = 128, 191
      end
      at = at + more + 1
    end
    return true
  end
end)

-- SHA-1 (FIPS 180-4) of a string, as the 20 bytes of the digest. Loaded with dofile, so it leaves a global.

local function rotate(word, count)
    return ((word << count) | (word >> (32 - count))) & 0xffffffff
end

local function block(state, text, from)
    local words = { string.unpack(">" .. ("I4"):rep(16), text, from) }
    for i = 17, 80 do
        words[i] = rotate(words[i - 3] ~ words[i - 8] ~ words[i - 14] ~ words[i - 16], 1)
    end
    local a, b, c, d, e = state[1], state[2], state[3], state[4], state[5]
    for i = 1, 80 do
        local f, k
        if i <= 20 then
            f, k = (b & c) | (~b & d), 0x5a827999
        elseif i <= 40 then
            f, k = b ~ c ~ d, 0x6ed9eba1
        elseif i <= 60 then
            f, k = (b & c) | (b & d) | (c & d), 0x8f1bbcdc
        else
            f, k = b ~ c ~ d, 0xca62c1d6
        end
        a, b, c, d, e = (rotate(a, 5) + (f & 0xffffffff) + e + k + words[i]) & 0xffffffff, a, rotate(b, 30), c, d
    end
    state[1] = (state[1] + a) & 0xffffffff
    state[2] = (state[2] + b) & 0xffffffff
    state[3] = (state[3] + c) & 0xffffffff
    state[4] = (state[4] + d) & 0xffffffff
    state[5] = (state[5] + e) & 0xffffffff
end

function Sha1(text)
    local padding = ("\0"):rep((55 - #text) % 64)
    local padded = text .. "\x80" .. padding .. string.pack(">I8", #text * 8)
    local state = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0 }
    for from = 1, #padded, 64 do
        block(state, padded, from)
    end
    return string.pack(">I4I4I4I4I4", table.unpack(state))
end

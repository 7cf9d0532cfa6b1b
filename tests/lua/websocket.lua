-- WebSocket by a script: handshake, masked frames from clients, fragments, pings and close. It is written like scripts of fooking's
-- users: globals, a table of states by session id, fooking.* modules, another file loaded with dofile.

local fb = require("fooking.buffer")
local fc = require("fooking.connection")
dofile("Sha1.lua")

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(text)
    local out = {}
    for i = 1, #text, 3 do
        local a, b, c = string.byte(text, i, i + 2)
        local n = (a << 16) | ((b or 0) << 8) | (c or 0)
        local function digit(shift)
            local at = ((n >> shift) & 63) + 1
            return ALPHABET:sub(at, at)
        end
        out[#out + 1] = digit(18) .. digit(12) .. (b and digit(6) or "=") .. (c and digit(0) or "=")
    end
    return table.concat(out)
end

local function encode(opcode, body)
    local len = #body
    if len < 126 then
        return string.char(0x80 | opcode, len) .. body
    elseif len < 65536 then
        return string.char(0x80 | opcode, 126) .. string.pack(">I2", len) .. body
    end
    return string.char(0x80 | opcode, 127) .. string.pack(">I8", len) .. body
end

local function unmask(body, mask)
    local m = { string.byte(mask, 1, 4) }
    local out = {}
    for i = 1, #body do
        out[i] = string.char(string.byte(body, i) ~ m[(i - 1) % 4 + 1])
    end
    return table.concat(out)
end

-- The fragments of an incomplete message, by session.
parts = {}

function onConnect(conn)
    parts[fc.id(conn)] = ""
end

function onClose(conn)
    parts[fc.id(conn)] = nil
end

local function handshake(conn, input)
    local head = fb.data(input)
    if not head:find("\r\n\r\n", 1, true) then
        return -1
    end
    local key = head:match("Sec%-WebSocket%-Key: ([%w+/=]+)")
    if not key then
        fc.send(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        fc.close(conn)
        return 1
    end
    local accept = base64(Sha1(key .. "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
    fc.send(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        .. "Sec-WebSocket-Accept: " .. accept .. "\r\n\r\n")
    fb.seek(input, fb.size(input))
    return 1
end

function onRead(conn, requestid, input, output)
    if requestid == 0 then
        return handshake(conn, input)
    end
    if fb.size(input) < 6 then
        return -1
    end
    local data = fb.data(input)
    local first, second = string.byte(data, 1, 2)
    local fin, opcode, len, head = first & 0x80 ~= 0, first & 0x0f, second & 0x7f, 2
    if len == 126 then
        if #data < 8 then return -1 end
        len, head = string.unpack(">I2", data, 3), 4
    elseif len == 127 then
        if #data < 14 then return -1 end
        len, head = string.unpack(">I8", data, 3), 10
    end
    local total = head + 4 + len
    if #data < total then
        return -1
    end
    local body = unmask(data:sub(head + 5, total), data:sub(head + 1, head + 4))
    fb.seek(input, total)
    local id = fc.id(conn)
    if opcode == 8 then
        fc.send(conn, encode(8, body))
        fc.close(conn)
    elseif opcode == 9 then
        fc.send(conn, encode(10, body))
    elseif opcode <= 2 then
        body = parts[id] .. body
        if fin then
            parts[id] = ""
            fb.append(output, body)
        else
            parts[id] = body
        end
    end
    return 1
end

function onWrite(conn, requestid, input, output)
    local body = fb.data(input)
    fb.seek(input, fb.size(input))
    fc.send(conn, encode(2, body))
    return 1
end

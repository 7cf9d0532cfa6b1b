-- websocket.lua again, written like typical scripts for fooking, with their faults. It reads input before it checks the length, so a
-- frame of which one byte has come is an error. It builds bodies byte by byte. It reads the body to write before it checks the length,
-- so an empty body is an error. It does not answer a close frame.

local fb = require("fooking.buffer")
local fc = require("fooking.connection")
dofile("websocket.lua")

local handshake = onRead

local function decode(data)
    local first, second = string.byte(data, 1, 2)
    local opcode, len, head = first & 15, second & 127, 2
    if len == 126 then
        len, head = string.unpack(">I2", data, 3), 4
    elseif len == 127 then
        len, head = string.unpack(">I8", data, 3), 10
    end
    local total = head + 4 + len
    if #data < total then
        return -1
    end
    local mask = { string.byte(data, head + 1, head + 4) }
    local body = ""
    if opcode ~= 8 then
        for i = 1, len do
            body = body .. string.char(string.byte(data, head + 4 + i) ~ mask[(i - 1) % 4 + 1])
        end
    end
    return total, body
end

function onRead(conn, requestid, input, output)
    if requestid == 0 then
        return handshake(conn, requestid, input, output)
    end
    local total, body = decode(fb.data(input))
    if total < 0 then
        return -1
    end
    fb.append(output, body)
    fb.seek(input, total)
    return 1
end

function onWrite(conn, requestid, input, output)
    local size = fb.size(input)
    local body = fb.data(input)
    fb.seek(input, size)
    local head
    if size < 126 then
        head = string.char(129, size)
    elseif size < 65536 then
        head = string.char(129, 126) .. string.pack(">I2", size)
    else
        head = string.char(129, 127) .. string.pack(">I8", size)
    end
    fc.send(conn, head .. body)
    return 1
end

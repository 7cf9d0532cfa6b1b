-- Two bytes of length, the body, and two bytes of checksum (the sum of the body's bytes). A frame with a wrong sum ends its session
-- with a message. Outgoing frames have a sequence number in the byte before the body, which shows if a frame overtakes another.

local buffer = require("longwire.buffer")
local connection = require("longwire.connection")

local sent = {}

local function sum(body)
    local total = 0
    for i = 1, #body do
        total = (total + string.byte(body, i)) & 0xffff
    end
    return total
end

function onConnect(conn)
    sent[connection.id(conn)] = 0
end

function onClose(conn)
    sent[connection.id(conn)] = nil
end

function onRead(conn, requestid, input, output)
    local data = buffer.data(input)
    if #data < 2 then
        return -1
    end
    local len = string.unpack(">I2", data)
    if #data < len + 4 then
        return -1
    end
    local body, check = string.unpack(">s2I2", data)
    buffer.seek(input, len + 4)
    if check ~= sum(body) then
        connection.send(conn, "bad checksum")
        connection.close(conn)
        return 1
    end
    buffer.append(output, body)
    return 1
end

function onWrite(conn, requestid, input, output)
    local id = connection.id(conn)
    local body = string.char(sent[id] & 0xff) .. buffer.data(input)
    sent[id] = sent[id] + 1
    buffer.append(output, string.pack(">s2I2", body, sum(body)))
    return 1
end

-- The default framing as a script. The benchmark compares it with the native one.

local fb = require("longwire.buffer")

function onRead(conn, requestid, input, output)
    local data = fb.data(input)
    if #data < 4 or #data < 4 + string.unpack(">I4", data) then
        return -1
    end
    local body, next = string.unpack(">s4", data)
    fb.append(output, body)
    fb.seek(input, next - 1)
    return 1
end

function onWrite(conn, requestid, input, output)
    fb.append(output, string.pack(">s4", fb.data(input)))
    return 1
end

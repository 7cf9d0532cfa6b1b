-- Length framing with faults on request: the first word of a frame selects the fault.

local fb = require("fooking.buffer")
local fc = require("fooking.connection")

local faults = {}

function faults.loop()
    while true do end
end

-- A pattern that takes a minute to match 30 bytes.
function faults.pattern()
    return (("a"):rep(30):find(("a?"):rep(30) .. ("a"):rep(30)))
end

function faults.guarded_loop()
    while true do
        pcall(function() while true do end end)
    end
end

function faults.coroutine_loop()
    while true do
        coroutine.resume(coroutine.create(function() while true do end end))
    end
end

function faults.error()
    local nothing = nil
    return nothing.field
end

function faults.eat()
    local eaten = {}
    while true do
        eaten[#eaten + 1] = string.rep("x", 100000) .. #eaten
    end
end

-- Memory that is kept after the call.
eaten = {}
function faults.hoard()
    while true do
        eaten[#eaten + 1] = string.rep("y", 100000) .. #eaten
    end
end

function faults.rep()
    return string.rep("x", 1 << 40)
end

function faults.send_much(conn)
    local text = string.rep("x", 1 << 20)
    while true do
        fc.send(conn, text)
    end
end

function faults.nothing_taken()
    return 1
end

function faults.exit()
    os.exit(0)
end

function faults.stale(conn)
    return fb.size(kept)
end

function faults.foreign(conn)
    fc.send(first, "not yours")
end

local function trouble(conn, body)
    local fault = faults[body:match("^%a[%a_]*") or ""]
    return fault and fault(conn)
end

function onConnect(conn)
    first = first or conn
end

function onRead(conn, requestid, input, output)
    local data = fb.data(input)
    if #data < 4 or #data < 4 + string.unpack(">I4", data) then
        return -1
    end
    kept = kept or input
    return trouble(conn, string.unpack(">s4", data)) or 0
end

function onWrite(conn, requestid, input, output)
    local body = fb.data(input)
    if body:match("^write ") then
        trouble(conn, body:sub(7))
    end
    return 0
end

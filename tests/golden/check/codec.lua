function onRead(conn, requestid, input, output)
    return 0
end

function onRead(conn, requestid, input, output)
    if then return 0 end
end

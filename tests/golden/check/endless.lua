-- Its limit ends it.
while true do
end

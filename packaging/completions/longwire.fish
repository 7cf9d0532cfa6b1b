# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_longwire_global_optspecs
    string join \n h/help V/version
end

function __fish_longwire_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_longwire_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_longwire_using_subcommand
    set -l cmd (__fish_longwire_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c longwire -n "__fish_longwire_needs_command" -s h -l help -d 'Print help'
complete -c longwire -n "__fish_longwire_needs_command" -s V -l version -d 'Print version'
complete -c longwire -n "__fish_longwire_needs_command" -f -a "serve" -d 'Run the server with a configuration file'
complete -c longwire -n "__fish_longwire_needs_command" -f -a "check" -d 'Check a configuration and print what it would run'
complete -c longwire -n "__fish_longwire_needs_command" -f -a "health" -d 'Ask the running node of a configuration whether it is ready, for the health check of a container'
complete -c longwire -n "__fish_longwire_needs_command" -f -a "dev" -d 'For development: serve one PHP script, or a folder with a script and a page. Starts its own php-fpm'
complete -c longwire -n "__fish_longwire_needs_command" -f -a "connect" -d 'Talk to a server frame by frame: type a line, see the replies'
complete -c longwire -n "__fish_longwire_needs_command" -f -a "bench" -d 'Measure a server: CPU per frame, latency, lost frames'
complete -c longwire -n "__fish_longwire_needs_command" -f -a "defaults" -d 'Print every configuration key with its default and its meaning'
complete -c longwire -n "__fish_longwire_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c longwire -n "__fish_longwire_using_subcommand serve" -l config -d 'The configuration file (TOML) [default: /etc/longwire/longwire.toml if it exists, otherwise ./longwire.toml]' -r -F
complete -c longwire -n "__fish_longwire_using_subcommand serve" -s h -l help -d 'Print help'
complete -c longwire -n "__fish_longwire_using_subcommand check" -l config -d 'The configuration file (TOML) [default: /etc/longwire/longwire.toml if it exists, otherwise ./longwire.toml]' -r -F
complete -c longwire -n "__fish_longwire_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longwire -n "__fish_longwire_using_subcommand health" -l config -d 'The configuration file (TOML) [default: /etc/longwire/longwire.toml if it exists, otherwise ./longwire.toml]' -r -F
complete -c longwire -n "__fish_longwire_using_subcommand health" -l timeout -d 'How long to wait for the answer' -r
complete -c longwire -n "__fish_longwire_using_subcommand health" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l tcp -d 'Where TCP clients connect; port 0 picks a free port' -r
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l http -d 'Where browsers connect: a page at /, WebSocket at /ws; port 0 picks a free port' -r
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l router -d 'Where other programs, such as RouterClient, send commands; "off" disables it' -r
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l api -d 'Where the same commands are accepted over HTTP; "off" disables it' -r
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l workers -d 'Number of PHP processes [default: twice the cores, at least 4]' -r
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l fastcgi -d 'Use the FastCGI responder at this address instead of starting a php-fpm' -r
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l events -d 'Events that run the script, besides message [default: none for a script; connect and close for a folder]' -r -f -a "connect\t'A session begins'
message\t'A frame has come; the script always gets this event'
close\t'A session has ended'
join\t'A session has joined a channel'
leave\t'A session has left a channel'
occupied\t'A channel has got its first session'
vacated\t'A channel has lost its last session'"
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l framing -d 'How bytes become frames' -r -f -a "length\t'A header says how long the frame is'
delimiter\t'A byte string ends the frame'
gap\t'Silence ends the frame; for a client this is the same as raw'
raw\t'Each read is a frame'"
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l length-bytes -d 'Width of the length field: 1, 2, 3, 4 or 8' -r
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l length-offset -d 'Where the length field begins in the header' -r
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l length-endian -d 'Byte order of the length field' -r -f -a "big\t'Network order'
little\t'Little end first'"
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l length-counts -d 'Which bytes the length counts' -r -f -a "body\t'The bytes after the header'
frame\t'Header and body together'"
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l length-mask -d 'Mask of the bits of the length field that hold the length, as in 0x3ff; 0 for all bits' -r
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l length-adjust -d 'Number that is added to the length to get the count of bytes after the header' -r
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l header-bytes -d 'Where the body begins [default: where the length field ends]' -r
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l trailer-bytes -d 'Number of bytes after the body that the length does not count' -r
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l start -d 'Bytes at the start of every frame; escapes as in --delimiter' -r
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l end -d 'Bytes at the end of every frame, after body and trailer; escapes as in --delimiter' -r
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l delimiter -d 'Bytes that end a frame; the escapes \\n, \\r, \\t, \\0, \\\\ and \\xNN are replaced' -r
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l escapes -d 'Bytes that are escaped and their codes, in hex, as in 7e=7d02,7d=7d01' -r
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l gap -d 'How long the silence lasts that ends a frame' -r
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l keep-header -d 'Keep the header as part of the frame'
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l strip-cr -d 'Remove one carriage return from the end of a received frame'
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l skip-empty -d 'Ignore empty frames'
complete -c longwire -n "__fish_longwire_using_subcommand dev" -l resync -d 'Skip bytes that cannot be a frame, up to the next start'
complete -c longwire -n "__fish_longwire_using_subcommand dev" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l send -d 'Send this text as a frame and wait for a reply; may be repeated' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l send-hex -d 'Send these bytes as a binary frame and wait for a reply; may be repeated. Sent after every --send' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l exec -d 'Run the orders in this file; "-" is standard input' -r -F
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l wait -d 'Collect replies for this long after --send, instead of one reply for each frame' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l timeout -d 'How long to wait for the connection, and for each expected reply' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l max-frame-bytes -d 'Largest frame that is accepted' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l header -d 'A header of the WebSocket handshake: \'Name: value\'; may be repeated' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l ca -d 'PEM file with the CAs to trust for tls:// and wss://, instead of the system\'s CAs' -r -F
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l origin -d 'The Origin of the WebSocket handshake' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l protocol -d 'A WebSocket sub-protocol to offer; may be repeated' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l framing -d 'How bytes become frames' -r -f -a "length\t'A header says how long the frame is'
delimiter\t'A byte string ends the frame'
gap\t'Silence ends the frame; for a client this is the same as raw'
raw\t'Each read is a frame'"
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l length-bytes -d 'Width of the length field: 1, 2, 3, 4 or 8' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l length-offset -d 'Where the length field begins in the header' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l length-endian -d 'Byte order of the length field' -r -f -a "big\t'Network order'
little\t'Little end first'"
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l length-counts -d 'Which bytes the length counts' -r -f -a "body\t'The bytes after the header'
frame\t'Header and body together'"
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l length-mask -d 'Mask of the bits of the length field that hold the length, as in 0x3ff; 0 for all bits' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l length-adjust -d 'Number that is added to the length to get the count of bytes after the header' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l header-bytes -d 'Where the body begins [default: where the length field ends]' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l trailer-bytes -d 'Number of bytes after the body that the length does not count' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l start -d 'Bytes at the start of every frame; escapes as in --delimiter' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l end -d 'Bytes at the end of every frame, after body and trailer; escapes as in --delimiter' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l delimiter -d 'Bytes that end a frame; the escapes \\n, \\r, \\t, \\0, \\\\ and \\xNN are replaced' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l escapes -d 'Bytes that are escaped and their codes, in hex, as in 7e=7d02,7d=7d01' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l gap -d 'How long the silence lasts that ends a frame' -r
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l escape -d 'Replace the escapes \\n, \\r, \\t, \\0, \\\\ and \\xNN in typed lines and in --send'
complete -c longwire -n "__fish_longwire_using_subcommand connect" -s q -l quiet -d 'Print only the received frames, one per line, without marks and times'
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l insecure -d 'Accept any server certificate'
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l keep-header -d 'Keep the header as part of the frame'
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l strip-cr -d 'Remove one carriage return from the end of a received frame'
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l skip-empty -d 'Ignore empty frames'
complete -c longwire -n "__fish_longwire_using_subcommand connect" -l resync -d 'Skip bytes that cannot be a frame, up to the next start'
complete -c longwire -n "__fish_longwire_using_subcommand connect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and not __fish_seen_subcommand_from echo fanout idle accept help" -s h -l help -d 'Print help'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and not __fish_seen_subcommand_from echo fanout idle accept help" -f -a "echo" -d 'Send messages and wait for their replies'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and not __fish_seen_subcommand_from echo fanout idle accept help" -f -a "fanout" -d 'Publish messages and check that each reaches every subscriber'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and not __fish_seen_subcommand_from echo fanout idle accept help" -f -a "idle" -d 'Hold many silent connections and measure what they cost'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and not __fish_seen_subcommand_from echo fanout idle accept help" -f -a "accept" -d 'Connect, disconnect and connect again, to measure the rate of new connections'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and not __fish_seen_subcommand_from echo fanout idle accept help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l connections -d 'Number of clients' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l in-flight -d 'Messages that one client may have sent without a reply yet' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l bytes -d 'Size of a message' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l rate -d 'Messages a second, of all clients together [default: full speed]' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l warm-up -d 'Time at the start that is not measured' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l duration -d 'Time that is measured' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l timeout -d 'How long to wait for a connection, for an answer to --say, or for a reply' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l pid -d 'Report CPU and memory of this process and its children; may be repeated' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l max-frame-bytes -d 'Largest frame that is accepted' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l header -d 'A header of the WebSocket handshake, or of each http:// request: \'Name: value\'; may be repeated' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l ca -d 'PEM file with the CAs to trust for tls:// and wss://, instead of the system\'s CAs' -r -F
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l framing -d 'How bytes become frames' -r -f -a "length\t'A header says how long the frame is'
delimiter\t'A byte string ends the frame'
gap\t'Silence ends the frame; for a client this is the same as raw'
raw\t'Each read is a frame'"
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l length-bytes -d 'Width of the length field: 1, 2, 3, 4 or 8' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l length-offset -d 'Where the length field begins in the header' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l length-endian -d 'Byte order of the length field' -r -f -a "big\t'Network order'
little\t'Little end first'"
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l length-counts -d 'Which bytes the length counts' -r -f -a "body\t'The bytes after the header'
frame\t'Header and body together'"
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l length-mask -d 'Mask of the bits of the length field that hold the length, as in 0x3ff; 0 for all bits' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l length-adjust -d 'Number that is added to the length to get the count of bytes after the header' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l header-bytes -d 'Where the body begins [default: where the length field ends]' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l trailer-bytes -d 'Number of bytes after the body that the length does not count' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l start -d 'Bytes at the start of every frame; escapes as in --delimiter' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l end -d 'Bytes at the end of every frame, after body and trailer; escapes as in --delimiter' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l delimiter -d 'Bytes that end a frame; the escapes \\n, \\r, \\t, \\0, \\\\ and \\xNN are replaced' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l escapes -d 'Bytes that are escaped and their codes, in hex, as in 7e=7d02,7d=7d01' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l gap -d 'How long the silence lasts that ends a frame' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l any-reply -d 'Accept any reply, not just an echo: each reply counts for the oldest message without one'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l json -d 'Print the report as one JSON object on standard output'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -s q -l quiet -d 'Do not print progress'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l insecure -d 'Accept any server certificate'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l keep-header -d 'Keep the header as part of the frame'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l strip-cr -d 'Remove one carriage return from the end of a received frame'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l skip-empty -d 'Ignore empty frames'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -l resync -d 'Skip bytes that cannot be a frame, up to the next start'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from echo" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l publish -d 'Where messages are published: router://HOST:PORT/CHANNEL, http(s)://HOST:PORT/PATH (POST), or the URL of a listener, as for the subscribers' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l secret-file -d 'File with the secret of the router port' -r -F
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l publish-header -d 'A header of the publisher\'s handshake or requests: \'Name: value\'; may be repeated' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l connections -d 'Number of subscribers' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l channels -d 'Number of channels; subscribers and messages are spread over them in turn. \'{channel}\' in --say and --publish stands for a channel\'s number' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l say -d 'Text that each subscriber sends first, to join the channel; the first frame that comes back is taken as the answer' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l bytes -d 'Size of a message' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l rate -d 'Messages published a second' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l window -d 'Messages that may be on their way at once: not yet delivered to every subscriber' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l warm-up -d 'Time at the start that is not measured' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l duration -d 'Time that is measured' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l timeout -d 'How long to wait for a connection, for an answer to --say, or for a reply' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l pid -d 'Report CPU and memory of this process and its children; may be repeated' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l max-frame-bytes -d 'Largest frame that is accepted' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l header -d 'A header of the WebSocket handshake, or of each http:// request: \'Name: value\'; may be repeated' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l ca -d 'PEM file with the CAs to trust for tls:// and wss://, instead of the system\'s CAs' -r -F
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l framing -d 'How bytes become frames' -r -f -a "length\t'A header says how long the frame is'
delimiter\t'A byte string ends the frame'
gap\t'Silence ends the frame; for a client this is the same as raw'
raw\t'Each read is a frame'"
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l length-bytes -d 'Width of the length field: 1, 2, 3, 4 or 8' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l length-offset -d 'Where the length field begins in the header' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l length-endian -d 'Byte order of the length field' -r -f -a "big\t'Network order'
little\t'Little end first'"
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l length-counts -d 'Which bytes the length counts' -r -f -a "body\t'The bytes after the header'
frame\t'Header and body together'"
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l length-mask -d 'Mask of the bits of the length field that hold the length, as in 0x3ff; 0 for all bits' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l length-adjust -d 'Number that is added to the length to get the count of bytes after the header' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l header-bytes -d 'Where the body begins [default: where the length field ends]' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l trailer-bytes -d 'Number of bytes after the body that the length does not count' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l start -d 'Bytes at the start of every frame; escapes as in --delimiter' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l end -d 'Bytes at the end of every frame, after body and trailer; escapes as in --delimiter' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l delimiter -d 'Bytes that end a frame; the escapes \\n, \\r, \\t, \\0, \\\\ and \\xNN are replaced' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l escapes -d 'Bytes that are escaped and their codes, in hex, as in 7e=7d02,7d=7d01' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l gap -d 'How long the silence lasts that ends a frame' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l any-reply -d 'Accept any delivery, not just the exact message: each counts as the next message that this subscriber is missing'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l json -d 'Print the report as one JSON object on standard output'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -s q -l quiet -d 'Do not print progress'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l insecure -d 'Accept any server certificate'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l keep-header -d 'Keep the header as part of the frame'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l strip-cr -d 'Remove one carriage return from the end of a received frame'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l skip-empty -d 'Ignore empty frames'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -l resync -d 'Skip bytes that cannot be a frame, up to the next start'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from fanout" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l connections -d 'Number of clients' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l say -d 'Text that each client sends first; the first frame that comes back is taken as the answer' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l hold -d 'How long the connections are held' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l timeout -d 'How long to wait for a connection, for an answer to --say, or for a reply' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l pid -d 'Report CPU and memory of this process and its children; may be repeated' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l max-frame-bytes -d 'Largest frame that is accepted' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l header -d 'A header of the WebSocket handshake, or of each http:// request: \'Name: value\'; may be repeated' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l ca -d 'PEM file with the CAs to trust for tls:// and wss://, instead of the system\'s CAs' -r -F
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l framing -d 'How bytes become frames' -r -f -a "length\t'A header says how long the frame is'
delimiter\t'A byte string ends the frame'
gap\t'Silence ends the frame; for a client this is the same as raw'
raw\t'Each read is a frame'"
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l length-bytes -d 'Width of the length field: 1, 2, 3, 4 or 8' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l length-offset -d 'Where the length field begins in the header' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l length-endian -d 'Byte order of the length field' -r -f -a "big\t'Network order'
little\t'Little end first'"
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l length-counts -d 'Which bytes the length counts' -r -f -a "body\t'The bytes after the header'
frame\t'Header and body together'"
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l length-mask -d 'Mask of the bits of the length field that hold the length, as in 0x3ff; 0 for all bits' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l length-adjust -d 'Number that is added to the length to get the count of bytes after the header' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l header-bytes -d 'Where the body begins [default: where the length field ends]' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l trailer-bytes -d 'Number of bytes after the body that the length does not count' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l start -d 'Bytes at the start of every frame; escapes as in --delimiter' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l end -d 'Bytes at the end of every frame, after body and trailer; escapes as in --delimiter' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l delimiter -d 'Bytes that end a frame; the escapes \\n, \\r, \\t, \\0, \\\\ and \\xNN are replaced' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l escapes -d 'Bytes that are escaped and their codes, in hex, as in 7e=7d02,7d=7d01' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l gap -d 'How long the silence lasts that ends a frame' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l json -d 'Print the report as one JSON object on standard output'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -s q -l quiet -d 'Do not print progress'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l insecure -d 'Accept any server certificate'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l keep-header -d 'Keep the header as part of the frame'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l strip-cr -d 'Remove one carriage return from the end of a received frame'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l skip-empty -d 'Ignore empty frames'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -l resync -d 'Skip bytes that cannot be a frame, up to the next start'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from idle" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l parallel -d 'Number of connections that are opened at the same time' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l say -d 'Text that each client sends before it disconnects; the first frame that comes back is taken as the answer' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l warm-up -d 'Time at the start that is not measured' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l duration -d 'Time that is measured' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l timeout -d 'How long to wait for a connection, for an answer to --say, or for a reply' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l pid -d 'Report CPU and memory of this process and its children; may be repeated' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l max-frame-bytes -d 'Largest frame that is accepted' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l header -d 'A header of the WebSocket handshake, or of each http:// request: \'Name: value\'; may be repeated' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l ca -d 'PEM file with the CAs to trust for tls:// and wss://, instead of the system\'s CAs' -r -F
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l framing -d 'How bytes become frames' -r -f -a "length\t'A header says how long the frame is'
delimiter\t'A byte string ends the frame'
gap\t'Silence ends the frame; for a client this is the same as raw'
raw\t'Each read is a frame'"
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l length-bytes -d 'Width of the length field: 1, 2, 3, 4 or 8' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l length-offset -d 'Where the length field begins in the header' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l length-endian -d 'Byte order of the length field' -r -f -a "big\t'Network order'
little\t'Little end first'"
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l length-counts -d 'Which bytes the length counts' -r -f -a "body\t'The bytes after the header'
frame\t'Header and body together'"
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l length-mask -d 'Mask of the bits of the length field that hold the length, as in 0x3ff; 0 for all bits' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l length-adjust -d 'Number that is added to the length to get the count of bytes after the header' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l header-bytes -d 'Where the body begins [default: where the length field ends]' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l trailer-bytes -d 'Number of bytes after the body that the length does not count' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l start -d 'Bytes at the start of every frame; escapes as in --delimiter' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l end -d 'Bytes at the end of every frame, after body and trailer; escapes as in --delimiter' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l delimiter -d 'Bytes that end a frame; the escapes \\n, \\r, \\t, \\0, \\\\ and \\xNN are replaced' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l escapes -d 'Bytes that are escaped and their codes, in hex, as in 7e=7d02,7d=7d01' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l gap -d 'How long the silence lasts that ends a frame' -r
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l json -d 'Print the report as one JSON object on standard output'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -s q -l quiet -d 'Do not print progress'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l insecure -d 'Accept any server certificate'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l keep-header -d 'Keep the header as part of the frame'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l strip-cr -d 'Remove one carriage return from the end of a received frame'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l skip-empty -d 'Ignore empty frames'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -l resync -d 'Skip bytes that cannot be a frame, up to the next start'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from accept" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from help" -f -a "echo" -d 'Send messages and wait for their replies'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from help" -f -a "fanout" -d 'Publish messages and check that each reaches every subscriber'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from help" -f -a "idle" -d 'Hold many silent connections and measure what they cost'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from help" -f -a "accept" -d 'Connect, disconnect and connect again, to measure the rate of new connections'
complete -c longwire -n "__fish_longwire_using_subcommand bench; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c longwire -n "__fish_longwire_using_subcommand defaults" -s h -l help -d 'Print help'
complete -c longwire -n "__fish_longwire_using_subcommand help; and not __fish_seen_subcommand_from serve check health dev connect bench defaults help" -f -a "serve" -d 'Run the server with a configuration file'
complete -c longwire -n "__fish_longwire_using_subcommand help; and not __fish_seen_subcommand_from serve check health dev connect bench defaults help" -f -a "check" -d 'Check a configuration and print what it would run'
complete -c longwire -n "__fish_longwire_using_subcommand help; and not __fish_seen_subcommand_from serve check health dev connect bench defaults help" -f -a "health" -d 'Ask the running node of a configuration whether it is ready, for the health check of a container'
complete -c longwire -n "__fish_longwire_using_subcommand help; and not __fish_seen_subcommand_from serve check health dev connect bench defaults help" -f -a "dev" -d 'For development: serve one PHP script, or a folder with a script and a page. Starts its own php-fpm'
complete -c longwire -n "__fish_longwire_using_subcommand help; and not __fish_seen_subcommand_from serve check health dev connect bench defaults help" -f -a "connect" -d 'Talk to a server frame by frame: type a line, see the replies'
complete -c longwire -n "__fish_longwire_using_subcommand help; and not __fish_seen_subcommand_from serve check health dev connect bench defaults help" -f -a "bench" -d 'Measure a server: CPU per frame, latency, lost frames'
complete -c longwire -n "__fish_longwire_using_subcommand help; and not __fish_seen_subcommand_from serve check health dev connect bench defaults help" -f -a "defaults" -d 'Print every configuration key with its default and its meaning'
complete -c longwire -n "__fish_longwire_using_subcommand help; and not __fish_seen_subcommand_from serve check health dev connect bench defaults help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c longwire -n "__fish_longwire_using_subcommand help; and __fish_seen_subcommand_from bench" -f -a "echo" -d 'Send messages and wait for their replies'
complete -c longwire -n "__fish_longwire_using_subcommand help; and __fish_seen_subcommand_from bench" -f -a "fanout" -d 'Publish messages and check that each reaches every subscriber'
complete -c longwire -n "__fish_longwire_using_subcommand help; and __fish_seen_subcommand_from bench" -f -a "idle" -d 'Hold many silent connections and measure what they cost'
complete -c longwire -n "__fish_longwire_using_subcommand help; and __fish_seen_subcommand_from bench" -f -a "accept" -d 'Connect, disconnect and connect again, to measure the rate of new connections'

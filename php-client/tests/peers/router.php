<?php

// A faulty router in its own process; MODE selects the fault: php router.php ADDRESS MODE [NUMBER]
//
// The first line that it prints is its address. Then it prints a line of JSON for each event. It ends when its standard input ends. The
// protocol is implemented here independently, so that the clients' mistakes are not repeated on this side.

declare(strict_types=1);

[, $address, $mode] = $argv;
$number = (int) ($argv[3] ?? 0);

$listening = stream_socket_server($address, $code, $message);
if ($listening === false) {
    fwrite(STDERR, "$message\n");
    exit(1);
}
$name = stream_socket_get_name($listening, false);
say(str_starts_with($address, 'unix:') ? $address : "tcp://$name");

/** One connection to this router. */
final class Peer
{
    public string $input = '';
    public string $clientNonce = '';
    public string $serverNonce = '';
    public int $commands = 0;

    public function __construct(public $socket, public int $index)
    {
    }
}

$peers = [];
$accepted = 0;
while (true) {
    $read = [STDIN, $listening, ...array_column($peers, 'socket', 'index')];
    $none = null;
    if (!@stream_select($read, $none, $none, 60)) {
        exit(1);
    }
    if (in_array(STDIN, $read, true)) {
        exit(0);
    }
    if (in_array($listening, $read, true)) {
        $socket = stream_socket_accept($listening);
        if ($mode === 'slow') {
            socket_set_option(socket_import_stream($socket), SOL_SOCKET, SO_RCVBUF, 16384);
        }
        stream_set_blocking($socket, false);
        $peers[$accepted] = new Peer($socket, $accepted++);
        say(json_encode(['accepted' => $accepted]));
    }
    foreach ($peers as $index => $peer) {
        if (!in_array($peer->socket, $read, true)) {
            continue;
        }
        if ($mode === 'slow') {
            usleep(100);
        }
        $bytes = fread($peer->socket, $mode === 'slow' ? $number : 65536);
        if ($bytes === false || $bytes === '' && feof($peer->socket)) {
            say(json_encode(['ended' => $index + 1, 'rest' => strlen($peer->input)]));
            unset($peers[$index]);
            continue;
        }
        $peer->input .= $bytes;
        $isOver = match ($mode) {
            'silent' => false,
            'garbage' => send($peer, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
            default => frames($peer, $mode, $number),
        };
        if ($isOver) {
            fclose($peer->socket);
            unset($peers[$index]);
            say(json_encode(['closed' => $index + 1]));
        }
    }
}

/** Whether the connection is to be closed. */
function frames(Peer $peer, string $mode, int $number): bool
{
    if ($mode === 'breaks-off' && $peer->index === 0 && $peer->commands > 0 && strlen($peer->input) > $number) {
        return true;
    }
    while (strlen($peer->input) >= 8) {
        $head = unpack('ntype/nslen/Nlen', $peer->input);
        $whole = 8 + $head['slen'] + $head['len'];
        if (strlen($peer->input) < $whole) {
            return false;
        }
        $fields = [];
        for ($at = 8; $at < 8 + $head['slen']; $at += 3 + $field['n']) {
            $field = unpack('Ctag/nn', $peer->input, $at);
            $fields[$field['tag']] = substr($peer->input, $at + 3, $field['n']);
        }
        $frame = substr($peer->input, 0, $whole);
        $body = substr($frame, 8 + $head['slen']);
        $peer->input = substr($peer->input, $whole);
        if ($head['type'] === 0x4C01) {
            [$peer->clientNonce, $peer->serverNonce] = [$fields[0x02], random_bytes(32)];
            if ($mode === 'late' && $peer->index > 0) {
                usleep($number);
            }
            $auth = match ($mode) {
                'impostor', 'unproved', 'guarded' => "\1",
                'odd-auth' => "\2",
                default => "\0",
            };
            send($peer, frame(0x4C02, [0x01 => "\1", 0x02 => $peer->serverNonce, 0x04 => $auth, 0x03 => 'peer']));
            if ($auth !== "\1") {
                send($peer, frame(0x4C04, []));
            }
        } elseif ($head['type'] === 0x4C03) {
            send($peer, frame(0x4C04, match ($mode) {
                'unproved' => [],
                'guarded' => [0x05 => proof($peer, $fields[0x05])],
                default => [0x05 => random_bytes(32)],
            }));
        } else {
            $peer->commands++;
            $event = ['command' => $head['type'], 'on' => $peer->index + 1, 'bytes' => strlen($body)];
            $event += ['sha256' => hash('sha256', $body), 'hex' => $whole < 1000 ? bin2hex($frame) : null];
            say(json_encode($event));
            if (command($peer, $head['type'], $fields[0x06] ?? '', $mode, $number)) {
                return true;
            }
        }
    }
    return false;
}

/** The server's proof of the secret that the client has proved: 'guarded' knows several. */
function proof(Peer $peer, string $clientProof): string
{
    foreach (['a long random text', 'another random text'] as $secret) {
        $expected = "longwire router 1 client$peer->clientNonce$peer->serverNonce";
        if (hash_equals(hash_hmac('sha256', $expected, $secret, true), $clientProof)) {
            return hash_hmac('sha256', "longwire router 1 server$peer->serverNonce$peer->clientNonce", $secret, true);
        }
    }
    return '';
}

/** Whether the connection is to be closed. */
function command(Peer $peer, int $type, string $request, string $mode, int $number): bool
{
    $answer = $type >= 0x4C20
        ? frame(0x4C81, [0x06 => $request], json_encode(['answered' => $peer->commands]))
        : frame(0x4C80, [0x06 => $request, 0x07 => pack('N8', 1, 0, 0, 0, 0, 0, 0, 0)]);
    switch ($mode) {
        case 'mute':
            return false;
        case 'late':
            if ($peer->commands === 1 && $peer->index === 0) {
                send($peer, $answer);
                return false;
            }
            usleep($peer->index === 0 ? $number : 0);
            return $peer->index === 0;
        case 'mute-first':
            return $peer->index > 0 && !send($peer, $answer);
        case 'killed':
            posix_kill(getmypid(), SIGKILL);
            // no break: it does not come here
        case 'cut':
            return send($peer, substr($answer, 0, $number));
        case 'stalls':
            send($peer, substr($answer, 0, $number));
            return false;
        case 'trickles':
            foreach (str_split($answer) as $byte) {
                send($peer, $byte);
                usleep($number);
            }
            return false;
        case 'confused':
            send($peer, frame(0x4C80, [0x06 => pack('N', 0xFFFFFFFF), 0x07 => str_repeat("\0", 32)]));
            return false;
        case 'huge':
            send($peer, pack('nnN', 0x4C81, 0, 0xFFFFFFF0));
            return false;
        case 'one-each':
            return send($peer, $answer);
        case 'drops-second':
            return $peer->index === 0 && $peer->commands === 2 || !send($peer, $answer);
        default:
            send($peer, $answer);
            return false;
    }
}

function frame(int $type, array $fields, string $body = ''): string
{
    $bytes = '';
    foreach ($fields as $tag => $value) {
        $bytes .= pack('Cn', $tag, strlen($value)) . $value;
    }
    return pack('nnN', $type, strlen($bytes), strlen($body)) . $bytes . $body;
}

function send(Peer $peer, string $bytes): bool
{
    @fwrite($peer->socket, $bytes);
    return true;
}

function say(string $line): void
{
    fwrite(STDOUT, "$line\n");
    fflush(STDOUT);
}

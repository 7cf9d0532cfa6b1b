<?php

// A platform for trackers that speak JT/T 808-2013. Each packet is one event, without its flags and escapes. Its last byte is the
// checksum.

declare(strict_types=1);

const HEARTBEAT = 0x0002;
const REGISTER = 0x0100;
const AUTHENTICATE = 0x0102;
const POSITION = 0x0200;
const GENERAL_ANSWER = 0x8001;
const REGISTER_ANSWER = 0x8100;

const DONE = 0;
const NOT_SUPPORTED = 3;

$packet = file_get_contents('php://input');
if (strlen($packet) < 13 || checksum($packet) !== 0) {
    // A broken packet is not answered, so the tracker sends it again.
    error_log('broken packet: ' . bin2hex($packet));
    exit;
}
['id' => $id, 'serial' => $serial] = unpack('nid/nproperties/H12phone/nserial', $packet);
$phone = substr($packet, 4, 6);

if ($id === REGISTER) {
    // The tracker shows this code when it authenticates.
    echo packet(REGISTER_ANSWER, $phone, pack('nC', $serial, DONE) . bin2hex($phone));
} else {
    $result = in_array($id, [HEARTBEAT, AUTHENTICATE, POSITION], true) ? DONE : NOT_SUPPORTED;
    echo packet(GENERAL_ANSWER, $phone, pack('nnC', $serial, $id, $result));
}

/** A whole packet. Its serial number must count up in the session, so it is the event's number. */
function packet(int $id, string $phone, string $body): string
{
    $packet = pack('nn', $id, strlen($body)) . $phone . pack('n', (int) $_SERVER['LONGWIRE_SEQ'] & 0xffff) . $body;
    return $packet . chr(checksum($packet));
}

/** All bytes, exclusive-or; zero for a packet with its checksum. */
function checksum(string $bytes): int
{
    return array_reduce(unpack('C*', $bytes), fn (int $sum, int $byte): int => $sum ^ $byte, 0);
}

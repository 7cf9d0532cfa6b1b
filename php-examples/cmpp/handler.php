<?php

// An SMS gateway that speaks CMPP 2.0. Each packet of a client is one event. The session's uid is the account that has logged in.
// CMPP_ACTIVE_TEST never comes here, because Longwire answers it: see the heartbeat in longwire.toml.

declare(strict_types=1);

include __DIR__ . '/cmpp.php';

const WRONG_STRUCTURE = 1;
const UNKNOWN_ACCOUNT = 2;
const WRONG_SECRET = 3;
const VERSION_TOO_HIGH = 4;
const OTHER_ERROR = 5;

$packet = file_get_contents('php://input');
['command' => $command, 'sequence' => $sequence] = unpack('Nlength/Ncommand/Nsequence', $packet);
$body = substr($packet, 12);
$account = $_SERVER['LONGWIRE_UID'] ?? null;

echo match (true) {
    $command === Cmpp\CONNECT => login($sequence, $body),
    $command === Cmpp\TERMINATE => goodbye($sequence),
    $account === null => hang_up('4001 CMPP_CONNECT comes first'),
    $command === Cmpp\SUBMIT => submit($account, $sequence, $body),
    $command === (Cmpp\DELIVER | Cmpp\RESP) => delivered($account, $sequence, $body),
    default => hang_up(sprintf('4002 unknown command %08x', $command)),
};

function login(int $sequence, string $body): string
{
    $login = Cmpp\connect($body);
    $secret = accounts()[$login['account'] ?? ''] ?? null;
    $status = match (true) {
        $login === null => WRONG_STRUCTURE,
        $login['version'] > Cmpp\VERSION => VERSION_TOO_HIGH,
        $login['version'] < Cmpp\VERSION => OTHER_ERROR,
        $secret === null => UNKNOWN_ACCOUNT,
        !hash_equals(Cmpp\authenticator($login['account'], $secret, $login['timestamp']), $login['authenticator'])
            => WRONG_SECRET,
        default => 0,
    };
    if ($status === 0) {
        header("Longwire-Uid: $login[account]");
        $proof = md5("\0" . $login['authenticator'] . $secret, true);
    } else {
        hang_up("4003 login refused with status $status");
        $proof = ''; // a client that does not know the secret gets no proof
    }
    return Cmpp\packet(Cmpp\CONNECT | Cmpp\RESP, $sequence, pack('Ca16C', $status, $proof, Cmpp\VERSION));
}

function goodbye(int $sequence): string
{
    header('Longwire-Close: 1000 terminated');
    return Cmpp\packet(Cmpp\TERMINATE | Cmpp\RESP, $sequence, '');
}

/** Accepts a message. If the client wants a delivery report, it is sent at once: two packets in one answer. */
function submit(string $account, int $sequence, string $body): string
{
    $message = Cmpp\submit($body);
    if ($message === null) {
        return Cmpp\packet(Cmpp\SUBMIT | Cmpp\RESP, $sequence, str_repeat("\0", 8) . chr(WRONG_STRUCTURE));
    }
    // If an event comes twice, it has the same id. No other event has this id.
    $id = substr(hash('sha256', "$_SERVER[SESSIONID] $_SERVER[LONGWIRE_SEQ]", true), 0, 8);
    $answer = Cmpp\packet(Cmpp\SUBMIT | Cmpp\RESP, $sequence, $id . "\0");
    $count = (int) ($_SERVER['LONGWIRE_ATTR_DELIVERS'] ?? 0);
    foreach ($message['to'] as $number) {
        hand_on($account, $number, $message);
        if ($message['report'] === 1) {
            $time = date('ymdHi');
            $report = Cmpp\report($id, 'DELIVRD', $time, $time, $number, $count);
            $deliver = Cmpp\deliver($id, $message['from'], $message['service'], $number, 0, $report, true);
            // Sequence numbers of our own packets: from 1 in each session, below those that deliver.php and the heartbeat use.
            $answer .= Cmpp\packet(Cmpp\DELIVER, ++$count & 0x3fffffff, $deliver);
        }
    }
    if ($message['report'] === 1) {
        header("Longwire-Set: delivers=$count");
    }
    return $answer;
}

/** A real gateway would send the message to the phone here; this one writes it to the log. */
function hand_on(string $account, string $number, array $message): void
{
    $text = Cmpp\decoded($message['format'], $message['content']);
    error_log("$account to $number: " . ($text ?? 'bytes ' . bin2hex($message['content'])));
}

/** Handles the client's answer to a CMPP_DELIVER: accepted or refused. */
function delivered(string $account, int $sequence, string $body): string
{
    $result = strlen($body) === 9 ? ord($body[8]) : -1;
    if ($result !== 0) {
        error_log("$account refused delivery $sequence with result $result");
    }
    return '';
}

function hang_up(string $why): string
{
    header("Longwire-Close: $why");
    return '';
}

/** @return array<string, string> secrets by account, from the configuration: "name=secret;name=secret" */
function accounts(): array
{
    $accounts = [];
    foreach (explode(';', $_SERVER['CMPP_ACCOUNTS'] ?? '') as $entry) {
        [$name, $secret] = explode('=', trim($entry), 2) + ['', ''];
        if ($name !== '' && $secret !== '') {
            $accounts[$name] = $secret;
        }
    }
    return $accounts;
}

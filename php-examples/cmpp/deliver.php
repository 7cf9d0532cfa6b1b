<?php

// Sends a text from a phone to a client that has logged in: php deliver.php [--router HOST:PORT] ACCOUNT FROM TO TEXT

declare(strict_types=1);

include __DIR__ . '/../api.php';
include __DIR__ . '/cmpp.php';

$arguments = array_slice($argv, 1);
$address = '127.0.0.1:9010';
if (($arguments[0] ?? '') === '--router') {
    [, $address] = array_splice($arguments, 0, 2) + [1 => ''];
}
if (count($arguments) !== 4) {
    fwrite(STDERR, "usage: php deliver.php [--router HOST:PORT] ACCOUNT FROM TO TEXT\n");
    exit(2);
}
[$account, $from, $to, $text] = $arguments;

[$format, $content] = Cmpp\encoded($text);
if (strlen($content) > 140) {
    fwrite(STDERR, "deliver.php: the text is longer than one message\n");
    exit(2);
}
$body = Cmpp\deliver(random_bytes(8), $to, '', $from, $format, $content, false);
// Above the sequence numbers that handler.php uses, below those of the heartbeat.
$packet = Cmpp\packet(Cmpp\DELIVER, 0x40000000 | random_int(0, 0x3fffffff), $body);

$router = new RouterClient($address, 9010, getenv('LONGWIRE_SECRET') ?: null, ['throw' => true]);
try {
    // An account may have several connections, but the message goes to one of them.
    $session = $router->uid($account, null, 1)['sessions'][0] ?? null;
    $reached = $session !== null && $router->sendMsg($session, $packet, ['type' => 'binary'])['reached'] > 0;
} catch (RuntimeException $error) {
    fwrite(STDERR, 'deliver.php: ' . $error->getMessage() . "\n");
    exit(1);
}
echo $reached ? "delivered to $account\n" : "$account is not there\n";
exit($reached ? 0 : 1);

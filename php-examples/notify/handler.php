<?php

// Gives each WebSocket the uid of its visitor. What is sent to that uid, by form.php or by any other script, reaches
// the page; this handler has no part in it.

declare(strict_types=1);

require_once __DIR__ . '/visitor.php';

if (($_SERVER['LONGWIRE_EVENT'] ?? '') !== 'connect') {
    exit; // the page only listens, and nothing has to be tidied up: a uid goes with its session
}

$name = visitor();
if ($name === null) {
    // Not a 403: a page's script does not get to see why a WebSocket was refused.
    header('Longwire-Close: 4001 sign in first');
} else {
    header('Longwire-Uid: ' . uid($name));
}
header('Longwire-Type: text');
echo json_encode(
    ['is' => 'hello', 'name' => $name, 'form' => other_side('NOTIFY_FORM', 8081, '/form.php')],
    JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_THROW_ON_ERROR
);

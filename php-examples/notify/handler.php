<?php

// Binds each WebSocket to the uid of its visitor. Messages to that uid, from form.php or any other script, then reach the page without
// this handler.

declare(strict_types=1);

require_once __DIR__ . '/visitor.php';

if (($_SERVER['LONGWIRE_EVENT'] ?? '') !== 'connect') {
    exit; // the page only listens, and there is nothing to clean up: the uid ends with the session
}

$name = visitor();
if ($name === null) {
    // Not a 403, because a page's script cannot see why a WebSocket was refused.
    header('Longwire-Close: 4001 sign in first');
} else {
    header('Longwire-Uid: ' . uid($name));
}
header('Longwire-Type: text');
echo json_encode(
    ['is' => 'hello', 'name' => $name, 'form' => other_side('NOTIFY_FORM', 8081, '/form.php')],
    JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_THROW_ON_ERROR
);

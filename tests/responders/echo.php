<?php

// A responder behind php-cgi: echoes frames and notes events.
file_put_contents(
    $_SERVER['NOTES'],
    "{$_SERVER['LONGWIRE_EVENT']} {$_SERVER['SESSIONID']} {$_SERVER['LONGWIRE_SEQ']}\n",
    FILE_APPEND,
);
$body = file_get_contents('php://input');
header('Content-Length: ' . strlen($body));
echo $body;

<?php

// A WebSocket handler that knows which user is logged in, by the same cookie and the same $_SESSION as the web pages of a shop.

declare(strict_types=1);

// A visitor without the cookie gets one: the headers of the answer to `connect` are sent with the 101, and Longwire sends the
// cookie again with each later event of this connection. A session id that PHP has not created itself is not accepted.
session_start(['use_strict_mode' => true, 'cookie_httponly' => true, 'cookie_samesite' => 'Lax']);

match ($_SERVER['LONGWIRE_EVENT']) {
    'connect' => welcome(),
    'message' => answer(trim(file_get_contents('php://input'))),
};

function welcome(): void
{
    $visit = $_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
    $name = $_SESSION['name'] ?? null;
    if ($name === null) {
        // An attacker may have planted the id with which an unknown visitor comes. So the visitor gets a new id with the 101, which no
        // other person knows, before the visitor gives a name.
        session_regenerate_id();
    }
    echo $name === null ? 'Hello, stranger. Who are you?' : "Welcome back, $name. This is visit $visit.";
}

function answer(string $text): void
{
    if ($text === 'forget me') {
        session_unset();
        echo 'Who was that?';
    } elseif (isset($_SESSION['name'])) {
        $_SESSION['messages']++;
        echo "$_SESSION[name], that was your message number $_SESSION[messages].";
    } elseif ($text === '') {
        echo 'And your name is?';
    } else {
        $_SESSION['name'] = $text;
        $_SESSION['messages'] = 0;
        echo "Nice to meet you, $text.";
    }
}

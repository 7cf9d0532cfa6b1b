<?php

// A WebSocket that knows who is logged in, by the same cookie and the same $_SESSION as the web pages of the shop.

declare(strict_types=1);

// A visitor without the cookie is given one: the headers of the answer to `connect` travel with the 101, and Longwire says the
// cookie again at each later event of this connection. An id that PHP has not made itself is not taken.
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
        // Somebody else may know the id that a stranger comes with, and may have given it to him. By the one that the 101 brings nobody but
        // this visitor is known when he tells his name.
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

<?php

// A WebSocket that knows who is logged in, by the same cookie and the same $_SESSION as the web pages of the shop.

declare(strict_types=1);

match ($_SERVER['LONGWIRE_EVENT']) {
    'connect' => welcome(),
    'message' => answer(trim(file_get_contents('php://input'))),
    'close' => forget(),
};

/** The answer to `connect` becomes the answer to the handshake: its headers, Set-Cookie among them, travel with the 101. */
function welcome(): void
{
    session_start();
    file_put_contents(note(), session_id(), LOCK_EX);

    $visit = $_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
    $name = $_SESSION['name'] ?? null;
    echo $name === null ? 'Hello, stranger. Who are you?' : "Welcome back, $name. This is visit $visit.";
}

function answer(string $text): void
{
    // The headers of a connection never change: a cookie that its own handshake has set is not among them, and a plain
    // TCP client has none at all. The note knows which session this connection was given.
    $session = @file_get_contents(note()) ?: throw new RuntimeException('no connect event: run with --events connect,close');
    session_id($session);
    session_start(['use_cookies' => false]);

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

function forget(): void
{
    // Only the note: the session goes on, for web pages and for the next visit.
    @unlink(note());
}

/** Where this connection's session id is noted. SESSIONID is made of A-Z, a-z, 0-9, _ and -, so it is a safe file name. */
function note(): string
{
    $folder = sys_get_temp_dir() . '/longwire-greeter';
    if (!is_dir($folder)) {
        @mkdir($folder, 0700);
    }
    return "$folder/$_SERVER[SESSIONID]";
}

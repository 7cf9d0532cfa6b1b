<?php

// Who a visitor is, for both sides: form.php, which a web server runs, and handler.php, which Longwire runs. In a shop
// this is the login, and it is there already: both sides include it and find the same session by the same cookie.

declare(strict_types=1);

const SESSION_OPTIONS = ['use_strict_mode' => true, 'cookie_httponly' => true, 'cookie_samesite' => 'Lax'];

/** The name that this visitor has signed in with, or null. Only looks: it changes no session and sets no cookie. */
function visitor(): ?string
{
    if (!isset($_COOKIE[session_name()])) {
        return null;
    }
    session_start(['read_and_close' => true] + SESSION_OPTIONS);
    // For a session that is over PHP has made a new one just now. Its cookie could take the place of one that the form
    // sets at the same time.
    header_remove('Set-Cookie');
    return $_SESSION['name'] ?? null;
}

/** What Longwire knows a visitor's sessions by: Ann and ann are one person. A shop takes the customer's number. */
function uid(string $name): string
{
    return strtolower($name);
}

/**
 * Where the other side is: what the setting says, which is a path where one web server is in front of both. Without it
 * both run on one host for a trial, at different ports, which share its cookies.
 */
function other_side(string $setting, int $port, string $path): string
{
    $host = preg_match('/^([a-z0-9.-]+|\[[0-9a-f:]+\])(:\d+)?$/i', $_SERVER['HTTP_HOST'] ?? '', $parts)
        ? $parts[1]
        : '127.0.0.1';
    return getenv($setting) ?: "http://$host:$port$path";
}

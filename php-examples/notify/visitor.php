<?php

// Identifies a visitor, for both sides: form.php, which a web server runs, and handler.php, which Longwire runs. In a real shop this is
// the existing login code. Both sides include it and find the same session by the same cookie.

declare(strict_types=1);

const SESSION_OPTIONS = ['use_strict_mode' => true, 'cookie_httponly' => true, 'cookie_samesite' => 'Lax'];

/** The name with which this visitor has signed in, or null. It only reads: it changes no session and sets no cookie. */
function visitor(): ?string
{
    if (!isset($_COOKIE[session_name()])) {
        return null;
    }
    session_start(['read_and_close' => true] + SESSION_OPTIONS);
    // If the session had ended, PHP has just created a new one. Do not send its cookie, which could overwrite one that the form sets at
    // the same time.
    header_remove('Set-Cookie');
    return $_SESSION['name'] ?? null;
}

/** The uid of a visitor's sessions: Ann and ann are one person. A real shop would use the customer number. */
function uid(string $name): string
{
    return strtolower($name);
}

/**
 * The address of the other side. The setting is a path if one web server is in front of both. Without the setting both run on one host
 * for a trial, on different ports, which share cookies.
 */
function other_side(string $setting, int $port, string $path): string
{
    $host = preg_match('/^([a-z0-9.-]+|\[[0-9a-f:]+\])(:\d+)?$/i', $_SERVER['HTTP_HOST'] ?? '', $parts)
        ? $parts[1]
        : '127.0.0.1';
    return getenv($setting) ?: "http://$host:$port$path";
}

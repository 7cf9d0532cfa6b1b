<?php

declare(strict_types=1);

namespace Longwire\Client\Internal;

use Longwire\Client\InvalidArgument;
use Longwire\Client\Target;

/**
 * Checks of names, ids and codes (docs/router-protocol.md). Each throws InvalidArgument.
 *
 * @internal
 */
final class Check
{
    public static function target(Target $target): void
    {
        self::targetAlone($target);
        foreach ($target->except as $except) {
            if ($except->kind === 'all') {
                throw new InvalidArgument('Target::all() cannot be an exception');
            }
            if ($except->except !== []) {
                throw new InvalidArgument('an exception cannot have exceptions itself');
            }
            self::targetAlone($except);
        }
    }

    private static function targetAlone(Target $target): void
    {
        foreach ($target->names as $name) {
            if ($target->kind === 'session') {
                self::sessionId($name);
            } else {
                self::name("a $target->kind", $name);
            }
        }
    }

    public static function sessionId(string $id): void
    {
        if (preg_match('/^[A-Za-z0-9]{16}$/D', $id) !== 1) {
            throw new InvalidArgument('a session id has 16 characters of A-Z a-z 0-9, not ' . self::shown($id));
        }
    }

    /** @param string $what for the sentence: a channel, a uid */
    public static function name(string $what, string $name): void
    {
        if ($name === '' || strlen($name) > 255 || preg_match('/[\x00-\x1F\x7F]/', $name) === 1) {
            throw new InvalidArgument("$what has 1 to 255 bytes and no control characters, not " . self::shown($name));
        }
    }

    public static function attributeKey(string $key): void
    {
        if (preg_match('/^[A-Za-z0-9_]{1,64}$/D', $key) !== 1) {
            throw new InvalidArgument("an attribute's key is 1 to 64 of A-Z a-z 0-9 _, not " . self::shown($key));
        }
    }

    /** Allows the codes that an endpoint may send by RFC 6455 section 7.4. */
    public static function closeCode(int $code): void
    {
        $maySend = $code >= 1000 && $code <= 1003 || $code >= 1007 && $code <= 1014 || $code >= 3000 && $code <= 4999;
        if (!$maySend) {
            throw new InvalidArgument("the close code $code may not be sent: 1000-1003, 1007-1014 and 3000-4999 may");
        }
    }

    /** A value for an error message, shortened, because a client may have sent it. */
    private static function shown(string $text): string
    {
        $cut = strlen($text) > 40 ? substr($text, 0, 40) . '...' : $text;
        return '"' . addcslashes($cut, "\0..\37\"\\\177..\377") . '"';
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client\Internal;

use Longwire\Client\Request;
use Longwire\Client\Target;
use Longwire\Client\Verb;

/**
 * Requests and messages as text, for failed assertions.
 *
 * @internal
 */
final class Shown
{
    private const MAX_BYTES = 200;

    public static function text(string $text): string
    {
        $cut = strlen($text) > self::MAX_BYTES ? substr($text, 0, self::MAX_BYTES) . '...' : $text;
        $isText = preg_match('//u', $cut) === 1;
        return '"' . addcslashes($cut, $isText ? "\0..\37\"\\\177" : "\0..\37\"\\\177..\377") . '"';
    }

    /** @param string|Target $target the id of a session, or a target */
    public static function target(string|Target $target): string
    {
        $target = is_string($target) ? Target::session($target) : $target;
        $names = implode(', ', $target->names);
        $except = implode(', ', array_map(self::target(...), $target->except));
        return ($names === '' ? $target->kind : "$target->kind $names") . ($except === '' ? '' : " except $except");
    }

    /** A message that is looked for. */
    public static function message(string|callable|null $message): string
    {
        return match (true) {
            $message === null => 'a message',
            is_string($message) => 'the message ' . self::text($message),
            default => 'a message that the callable accepts',
        };
    }

    /**
     * A list, one entry on each line.
     *
     * @param string       $what is in the list
     * @param list<string> $lines
     */
    public static function list(string $what, array $lines): string
    {
        return $lines === [] ? "$what: none" : "$what:\n  " . implode("\n  ", $lines);
    }

    public static function request(Request $request): string
    {
        $to = $request->to === null ? '' : self::target($request->to);
        return match ($request->verb) {
            Verb::Send => "to $to: " . self::text($request->body),
            Verb::Close => "$to with " . ($request->code ?? 1000),
            default => $request->name === null ? $to : "$to: " . self::text($request->name),
        };
    }
}

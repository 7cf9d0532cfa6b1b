<?php

declare(strict_types=1);

namespace Longwire\Client\Internal;

use Longwire\Client\InvalidArgument;

/**
 * The destination of warnings: a callable, a PSR-3 logger, or PHP's error log.
 *
 * @internal
 */
final class Log
{
    /** @return \Closure(string): void */
    public static function of(callable|object|null $log): \Closure
    {
        return match (true) {
            $log === null => static function (string $line): void {
                error_log($line);
            },
            is_callable($log) => static function (string $line) use ($log): void {
                $log($line);
            },
            is_callable([$log, 'warning']) => static function (string $line) use ($log): void {
                $log->warning($line);
            },
            default => throw new InvalidArgument('a log must be a callable, or an object with a method warning()'),
        };
    }
}

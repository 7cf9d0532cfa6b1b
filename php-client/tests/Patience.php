<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

/** Waits for a condition, and not for the clock. */
final class Patience
{
    /** @param callable(): bool $isTrue */
    public static function until(string $what, callable $isTrue): void
    {
        $deadline = microtime(true) + 20.0;
        while (!$isTrue()) {
            if (microtime(true) > $deadline) {
                throw new \RuntimeException("waited in vain: $what");
            }
            usleep(2000);
        }
    }
}

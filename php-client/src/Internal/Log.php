<?php

declare(strict_types=1);

namespace Longwire\Client\Internal;

use Psr\Log\LoggerInterface;

/**
 * The destination of warnings: a PSR-3 logger, a callable, or PHP's error log.
 *
 * @internal
 */
final class Log
{
    /** @param \Closure(string, array{exception?: \Throwable}): void $write */
    private function __construct(private readonly \Closure $write)
    {
    }

    /** A logger that can be called too is used as a logger. */
    public static function to(LoggerInterface|callable|null $log): self
    {
        return new self(match (true) {
            $log === null => static function (string $line): void {
                error_log($line);
            },
            $log instanceof LoggerInterface => static function (string $line, array $context) use ($log): void {
                $log->warning($line, $context);
            },
            // A function of PHP's own may take something else as its second argument.
            default => static function (string $line) use ($log): void {
                $log($line);
            },
        });
    }

    /** @param \Throwable|null $cause goes into the context of a PSR-3 logger, as its exception */
    public function warning(string $text, ?\Throwable $cause = null): void
    {
        ($this->write)("longwire/client: $text", $cause === null ? [] : ['exception' => $cause]);
    }
}

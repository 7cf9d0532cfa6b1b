<?php

declare(strict_types=1);

namespace Longwire\Client;

/** The router did not answer in time. */
final class TimedOut extends \RuntimeException implements Exception
{
    public function __construct(string $message, private readonly bool $mayBeDone = false)
    {
        parent::__construct($message);
    }

    public function mayBeDone(): bool
    {
        return $this->mayBeDone;
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client;

/** The server's answer does not follow the router protocol. */
final class ProtocolError extends \RuntimeException implements Exception
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

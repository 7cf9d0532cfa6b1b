<?php

declare(strict_types=1);

namespace Longwire\Client;

/** What answered does not speak as a router does. */
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

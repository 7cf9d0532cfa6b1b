<?php

declare(strict_types=1);

namespace Longwire\Client;

/** What was to be sent cannot be: a name that is none, an id of another length. Nothing was sent. */
final class InvalidArgument extends \InvalidArgumentException implements Exception
{
    public function mayBeDone(): bool
    {
        return false;
    }
}

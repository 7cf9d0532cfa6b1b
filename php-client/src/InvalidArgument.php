<?php

declare(strict_types=1);

namespace Longwire\Client;

/** A request has an invalid value, such as a bad name or an id of the wrong length. Nothing was sent. */
final class InvalidArgument extends \InvalidArgumentException implements Exception
{
    public function mayBeDone(): bool
    {
        return false;
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client;

/** The script was not called by Longwire. */
final class NoEvent extends \LogicException implements Exception
{
    public function mayBeDone(): bool
    {
        return false;
    }
}

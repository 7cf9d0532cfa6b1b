<?php

declare(strict_types=1);

namespace Longwire\Client\Events;

use Longwire\Client\Refused;
use Longwire\Client\Request;

/** A command or query was refused and not done: by the router, or by the batch that it was in. */
final class RequestRefused
{
    public function __construct(public readonly Request $request, public readonly Refused $refused)
    {
    }
}

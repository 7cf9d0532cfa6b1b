<?php

declare(strict_types=1);

namespace Longwire\Client\Events;

use Longwire\Client\Receipt;
use Longwire\Client\Request;

/** The router has done a command. The receipt says for how many sessions. */
final class RequestDone
{
    public function __construct(public readonly Request $request, public readonly Receipt $receipt)
    {
    }
}

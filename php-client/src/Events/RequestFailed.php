<?php

declare(strict_types=1);

namespace Longwire\Client\Events;

use Longwire\Client\Exception;
use Longwire\Client\Request;

/**
 * No usable answer came to a command or query: no connection, no answer in time, a closed connection, or an answer that cannot be read.
 * `$exception->mayBeDone()` says whether the router may have done it.
 *
 * Each request of a batch has its own event, with the same exception.
 */
final class RequestFailed
{
    public function __construct(public readonly Request $request, public readonly Exception $exception)
    {
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client;

/** The interface of all exceptions of this package. */
interface Exception extends \Throwable
{
    /** Whether the router may have run the request, or a part of it. False: a retry cannot run it twice. */
    public function mayBeDone(): bool;
}

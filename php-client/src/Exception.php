<?php

declare(strict_types=1);

namespace Longwire\Client;

/** What everything in this package throws is one of these. */
interface Exception extends \Throwable
{
    /** Whether the router may have done what it was asked, or a part of it. False: trying again cannot do it twice. */
    public function mayBeDone(): bool;
}

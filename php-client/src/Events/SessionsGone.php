<?php

declare(strict_types=1);

namespace Longwire\Client\Events;

use Longwire\Client\Request;

/**
 * The receipt of a command counts sessions that do not exist any more. This event follows RequestDone.
 *
 * A receipt counts them without naming them. all() says whether every session of the command is gone; otherwise RouterInterface::exists()
 * tells which.
 */
final class SessionsGone
{
    /**
     * @param list<string> $sessions the ids that the command named
     * @param int          $count    how many of them are gone
     */
    public function __construct(public readonly Request $request, public readonly array $sessions, public readonly int $count)
    {
    }

    public function all(): bool
    {
        return $this->count === count($this->sessions);
    }
}

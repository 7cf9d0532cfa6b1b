<?php

declare(strict_types=1);

namespace Longwire\Client;

/** No address took the connection and finished the greeting. The message names each, the previous one is the last. */
final class ConnectFailed extends \RuntimeException implements Exception
{
    public function mayBeDone(): bool
    {
        return false;
    }
}

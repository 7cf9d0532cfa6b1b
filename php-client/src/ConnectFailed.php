<?php

declare(strict_types=1);

namespace Longwire\Client;

/** No address accepted the connection and completed the handshake. The message names each; the previous exception is that of the last. */
final class ConnectFailed extends \RuntimeException implements Exception
{
    public function mayBeDone(): bool
    {
        return false;
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use Longwire\Client\Closed;
use Longwire\Client\ConnectFailed;
use Longwire\Client\Exception;
use Longwire\Client\ProtocolError;
use Longwire\Client\Refused;
use Longwire\Client\Router;
use Longwire\Client\TimedOut;

final class RouterFaultsTest extends FaultsTestCase
{
    protected function client(string|array $addresses, array $options = []): object
    {
        $timeout = $options['timeout'] ?? self::TIMEOUT;
        $secret = $options['secret'] ?? null;
        $log = static function (): void {
        };
        return new Router($addresses, $timeout, $timeout, $secret, log: $log);
    }

    protected function publish(object $client, string $message): int|string
    {
        try {
            return $client->publish('channel', $message)->reached;
        } catch (Exception $error) {
            return self::word($error);
        }
    }

    protected function ask(object $client): array|string
    {
        try {
            return $client->node();
        } catch (Exception $error) {
            return self::word($error);
        }
    }

    /** The word of FaultsTestCase, and that each says truly whether something may have been done. */
    private static function word(Exception $error): string
    {
        if ($error instanceof ConnectFailed) {
            self::assertFalse($error->mayBeDone());
            $cause = $error->getPrevious();
            return match (true) {
                $cause instanceof TimedOut => 'slow-greeting',
                $cause instanceof ProtocolError => 'no-router',
                $cause instanceof Refused => 'refused',
                default => 'down',
            };
        }
        self::assertTrue($error->mayBeDone());
        return match (true) {
            $error instanceof TimedOut => 'slow',
            $error instanceof Closed => 'closed',
            $error instanceof ProtocolError => 'no-router',
        };
    }

    protected function assertLogged(int $count): void
    {
        // It throws instead.
    }

    protected function logLines(): array
    {
        return [];
    }

    protected function forgetLog(): void
    {
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

require_once dirname(__DIR__) . '/api.php';

/** api.php: false, and a line in PHP's error log. */
final class ApiFaultsTest extends FaultsTestCase
{
    use ErrorLog;

    protected function client(string|array $addresses, array $options = []): object
    {
        $timeout = $options['timeout'] ?? self::TIMEOUT;
        $timeouts = ['connect_timeout' => $timeout, 'timeout' => $timeout];
        return new \RouterClient($addresses, 0, $options['secret'] ?? null, $timeouts);
    }

    protected function publish(object $client, string $message): int|string
    {
        $receipt = $client->publish('channel', $message);
        return $receipt === false ? self::word($client->lastError()) : $receipt['reached'];
    }

    protected function ask(object $client): array|string
    {
        return $client->node() ?: self::word($client->lastError());
    }

    private static function word(string $error): string
    {
        $isGreeting = str_starts_with($error, 'no router: ');
        return match (true) {
            preg_match('/did not answer within [\d.]+ s/', $error) === 1 => $isGreeting ? 'slow-greeting' : 'slow',
            $error === 'the router closed the connection' => 'closed',
            str_contains($error, 'not a Longwire router'), str_contains($error, 'asks for a secret'),
            str_contains($error, 'does not ask for the secret'),
            str_contains($error, 'does not know the secret'), str_contains($error, 'another request') => 'no-router',
            $isGreeting && preg_match('/Connection refused|No such file/', $error) === 1 => 'down',
            default => $error,
        };
    }
}

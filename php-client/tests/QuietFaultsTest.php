<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use Longwire\Client\Router;

/** quietly(): null, and a line in PHP's error log. */
final class QuietFaultsTest extends FaultsTestCase
{
    use ErrorLog;

    protected function client(string|array $addresses, array $options = []): object
    {
        $timeout = $options['timeout'] ?? self::TIMEOUT;
        return (new Router($addresses, $timeout, $timeout, $options['secret'] ?? null))->quietly();
    }

    protected function publish(object $client, string $message): int|string
    {
        $receipt = $client->publish('channel', $message);
        return $receipt === null ? $this->word() : $receipt->reached;
    }

    protected function ask(object $client): array|string
    {
        return $client->node() ?? $this->word();
    }

    private function word(): string
    {
        $lines = $this->logLines();
        $line = (string) preg_replace('/^\[.*?\] longwire\/client: /', '', (string) end($lines));
        $isGreeting = str_starts_with($line, 'no router: ');
        return match (true) {
            str_contains($line, 'did not answer in time') => $isGreeting ? 'slow-greeting' : 'slow',
            str_contains($line, 'closed the connection before it had answered') => 'closed',
            str_contains($line, 'not a Longwire router'), str_contains($line, 'asks for a secret'),
            str_contains($line, 'does not ask for the secret'),
            str_contains($line, 'does not know the secret'), str_contains($line, 'another request') => 'no-router',
            $isGreeting && preg_match('/Connection refused|No such file/', $line) === 1 => 'down',
            default => $line,
        };
    }
}

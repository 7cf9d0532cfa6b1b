<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

/** RouterTestCase with clients of a running Longwire. */
trait OnARunningNode
{
    /** @var array<string, Client> */
    private array $clients = [];

    protected function connect(): string
    {
        $client = new Client();
        $this->clients[$client->id] = $client;
        return $client->id;
    }

    protected function frames(string $id, int $count): array
    {
        return $this->clients[$id]->frames($count);
    }

    protected function leave(): void
    {
        array_map(static fn (Client $client) => $client->close(), $this->clients);
        $this->clients = [];
    }
}

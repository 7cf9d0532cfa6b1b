<?php

declare(strict_types=1);

namespace Longwire\Client\Testing;

/** A client of a FakeRouter, with everything that it has received. */
final class FakeSession
{
    /** @var list<FakeMessage> what was sent to it, oldest first */
    public array $received = [];
    /** @var list<string> */
    public array $channels = [];
    public ?string $uid = null;
    /** @var array<string, string> */
    public array $attributes = [];
    /** The code with which a router closed it; null while it is connected, or if it has left by itself. */
    public ?int $closeCode = null;
    public ?string $closeReason = null;

    /** @internal $fake->connect() makes one */
    public function __construct(public readonly string $id)
    {
    }

    /** @return list<string> the messages that it received, without their kinds and keys */
    public function bodies(): array
    {
        return array_map(static fn (FakeMessage $message): string => $message->body, $this->received);
    }
}

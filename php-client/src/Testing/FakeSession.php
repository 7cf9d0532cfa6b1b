<?php

declare(strict_types=1);

namespace Longwire\Client\Testing;

use Longwire\Client\Internal\Assertion;
use Longwire\Client\Internal\Shown;

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

    /**
     * This session has received a message, whatever the target of the message was.
     *
     * @param string|callable|null $message the whole text, or a callable that takes the text and the FakeMessage; null: any message
     */
    public function assertReceived(string|callable|null $message = null): void
    {
        $isMeant = static fn (FakeMessage $received): bool => match (true) {
            $message === null => true,
            is_string($message) => $received->body === $message,
            default => (bool) $message($received->body, $received),
        };
        $what = Shown::message($message) . " for session $this->id";
        Assertion::that(array_filter($this->received, $isMeant) !== [], fn (): string => "Expected $what. {$this->receivedShown()}");
    }

    public function assertNothingReceived(): void
    {
        $failure = fn (): string => "Expected no message for session $this->id. {$this->receivedShown()}";
        Assertion::that($this->received === [], $failure);
    }

    /** @return list<string> the messages that it received, without their kinds and keys */
    public function bodies(): array
    {
        return array_map(static fn (FakeMessage $message): string => $message->body, $this->received);
    }

    private function receivedShown(): string
    {
        return Shown::list('Messages that it has received', array_map(Shown::text(...), $this->bodies()));
    }
}

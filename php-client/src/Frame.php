<?php

declare(strict_types=1);

namespace Longwire\Client;

/** One frame that a client has sent. */
final class Frame
{
    public function __construct(public readonly string $body, public readonly Kind $kind = Kind::Text)
    {
    }

    /**
     * The frame of the message event that this script handles.
     *
     * @throws NoEvent if it handles another event, or Longwire did not call it
     */
    public static function fromGlobals(): self
    {
        return Event::fromGlobals()->frame ?? throw new NoEvent('this event is not a message, so it has no frame');
    }

    /**
     * The body, read as JSON; objects become arrays.
     *
     * @throws \JsonException
     */
    public function json(): mixed
    {
        return json_decode($this->body, true, 512, JSON_THROW_ON_ERROR);
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client;

/**
 * What became of a command, counted in sessions but for two counts of frames.
 *
 * Each session that was selected counts once among reached, queued, droppedClose, droppedNewest and refused. Nobody
 * reached is not an error.
 */
final class Receipt
{
    public function __construct(
        /** It is done: the kernel has taken the frame, the session is in the channel. */
        public readonly int $reached = 0,
        /** The frame waits in Longwire for the client to read. */
        public readonly int $queued = 0,
        /** The client reads too slowly; the frame was not sent and the session is being closed. */
        public readonly int $droppedClose = 0,
        /** Frames sent earlier that made room for this one. */
        public readonly int $droppedOldest = 0,
        /** The client reads too slowly; the frame was not sent. */
        public readonly int $droppedNewest = 0,
        /** Frames sent earlier with the same key, which this one replaces. */
        public readonly int $droppedLatest = 0,
        /** The session is there and it cannot be done: a limit, its framing, an attribute that is not as expected. */
        public readonly int $refused = 0,
        /** Ids that were named and are not there. */
        public readonly int $gone = 0,
        /** @var list<string> Nodes that may have sessions of the target and did not answer in time. */
        public readonly array $unreachable = [],
        /** There was no way to other nodes at all. */
        public readonly bool $engineDown = false,
    ) {
    }

    /** All nodes have answered: the counts are of everybody. */
    public function complete(): bool
    {
        return $this->unreachable === [] && !$this->engineDown;
    }

    /** Sessions for which it is done, or will be when they read. */
    public function delivered(): int
    {
        return $this->reached + $this->queued;
    }

    /** Sessions that read too slowly to be sent this. (Earlier frames that gave way to it are not among them.) */
    public function dropped(): int
    {
        return $this->droppedClose + $this->droppedNewest;
    }

    /** Both together. */
    public function plus(self $other): self
    {
        return new self(
            $this->reached + $other->reached,
            $this->queued + $other->queued,
            $this->droppedClose + $other->droppedClose,
            $this->droppedOldest + $other->droppedOldest,
            $this->droppedNewest + $other->droppedNewest,
            $this->droppedLatest + $other->droppedLatest,
            $this->refused + $other->refused,
            $this->gone + $other->gone,
            array_values(array_unique([...$this->unreachable, ...$other->unreachable])),
            $this->engineDown || $other->engineDown,
        );
    }
}

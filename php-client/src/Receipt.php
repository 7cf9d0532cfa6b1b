<?php

declare(strict_types=1);

namespace Longwire\Client;

/**
 * The result of a command. All counts are of sessions, except two counts of frames.
 *
 * Each selected session counts once, in reached, queued, droppedClose, droppedNewest or refused. It is not an error if no session was
 * reached.
 */
final class Receipt
{
    public function __construct(
        /** Done: the kernel has taken the frame, or the session is in the channel. */
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
        /** The session exists, but the command cannot be done: a limit, its framing, an attribute that is not as expected. */
        public readonly int $refused = 0,
        /** Ids in the target that do not exist. */
        public readonly int $gone = 0,
        /** @var list<string> Nodes that may have sessions of the target and did not answer in time. */
        public readonly array $unreachable = [],
        /** The engine was unavailable, so no other node could be reached. */
        public readonly bool $engineDown = false,
    ) {
    }

    /** Whether all nodes have answered, so that the counts are complete. */
    public function complete(): bool
    {
        return $this->unreachable === [] && !$this->engineDown;
    }

    /** Sessions for which it is done, or will be done when they read. */
    public function delivered(): int
    {
        return $this->reached + $this->queued;
    }

    /** Sessions that did not get the frame because they read too slowly. (Earlier frames that were dropped for it are not counted.) */
    public function dropped(): int
    {
        return $this->droppedClose + $this->droppedNewest;
    }

    /** The sum of two receipts. */
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

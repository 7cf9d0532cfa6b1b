<?php

declare(strict_types=1);

namespace Longwire\Client;

/** The kinds of events. */
enum EventKind: string
{
    /** A client has connected; the first event of its session. */
    case Connect = 'connect';
    /** It has sent a frame. */
    case Message = 'message';
    /** It is gone; the last event. */
    case Close = 'close';
    /** A session has joined a channel. */
    case Join = 'join';
    /** A session has left a channel, or has ended. */
    case Leave = 'leave';
    /** A channel has its first session. */
    case Occupied = 'occupied';
    /** A channel has lost its last session. */
    case Vacated = 'vacated';
    /** An ordinary HTTP request, of an app with plain_requests: no event of a session. */
    case Request = 'request';

    /** Whether the event has a number in a session. */
    public function isOfSession(): bool
    {
        return in_array($this, [self::Connect, self::Message, self::Close], true);
    }

    /** Whether it is a channel event. */
    public function isOfChannel(): bool
    {
        return in_array($this, [self::Join, self::Leave, self::Occupied, self::Vacated], true);
    }
}

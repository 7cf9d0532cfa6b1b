<?php

declare(strict_types=1);

namespace Longwire\Client;

/** What a handler is told. */
enum EventKind: string
{
    /** A client is there; the first event of its session. */
    case Connect = 'connect';
    /** It has sent a frame. */
    case Message = 'message';
    /** It is gone; the last event. */
    case Close = 'close';
}

<?php

declare(strict_types=1);

namespace Longwire\Client;

/** The kind of a frame; only WebSocket distinguishes them. */
enum Kind: int
{
    case Text = 1;
    case Binary = 2;

    /** The word in headers and in LONGWIRE_FRAME_TYPE. */
    public function word(): string
    {
        return $this === self::Text ? 'text' : 'binary';
    }
}

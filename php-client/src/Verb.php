<?php

declare(strict_types=1);

namespace Longwire\Client;

/** The kinds of requests; the numbers are the types of docs/router-protocol.md. */
enum Verb: int
{
    case Send = 0x4C10;
    case Join = 0x4C11;
    case Leave = 0x4C12;
    case Close = 0x4C13;
    case Bind = 0x4C14;
    case Unbind = 0x4C15;
    case Set = 0x4C16;
    case Delete = 0x4C17;
    case Exists = 0x4C18;
    case Attribute = 0x4C20;
    case Session = 0x4C21;
    case Channel = 0x4C22;
    case Uid = 0x4C23;
    case Channels = 0x4C24;
    case Sessions = 0x4C25;
    case Node = 0x4C26;
    case Nodes = 0x4C27;

    /** Whether a request may be repeated without another effect. */
    public function changesNothing(): bool
    {
        return $this->value >= self::Exists->value;
    }
}

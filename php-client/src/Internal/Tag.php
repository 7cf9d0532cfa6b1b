<?php

declare(strict_types=1);

namespace Longwire\Client\Internal;

/**
 * The tags of fields (the table in docs/router-protocol.md).
 *
 * @internal
 */
final class Tag
{
    public const VERSIONS = 0x01;
    public const NONCE = 0x02;
    public const PEER = 0x03;
    public const AUTH = 0x04;
    public const PROOF = 0x05;
    public const REQUEST = 0x06;
    public const COUNTS = 0x07;
    public const ERROR = 0x08;
    public const UNREACHABLE = 0x09;
    public const ENGINE_DOWN = 0x0A;
    public const SESSION = 0x10;
    public const UID = 0x11;
    public const CHANNEL = 0x12;
    public const ALL = 0x13;
    /** The tag of an exception is the tag of the target plus this. */
    public const EXCEPT = 0x08;
    public const NAME = 0x20;
    public const KIND = 0x21;
    public const KEY = 0x22;
    public const CODE = 0x23;
    public const REASON = 0x24;
    public const EXPECT = 0x25;
    public const EXPECT_ABSENT = 0x26;
    public const AFTER = 0x27;
    public const LIMIT = 0x28;
    public const ID = 0x29;
}

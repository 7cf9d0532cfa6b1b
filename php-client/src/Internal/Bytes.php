<?php

declare(strict_types=1);

namespace Longwire\Client\Internal;

/**
 * Reads numbers of the protocol, which are big-endian. The caller has checked that the bytes are there.
 *
 * @internal
 */
final class Bytes
{
    public static function u8(string $bytes, int $at): int
    {
        return ord($bytes[$at]);
    }

    public static function u16(string $bytes, int $at): int
    {
        return ord($bytes[$at]) << 8 | ord($bytes[$at + 1]);
    }

    public static function u32(string $bytes, int $at): int
    {
        return self::u16($bytes, $at) << 16 | self::u16($bytes, $at + 2);
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client\Internal;

/**
 * One frame of the router's long protocol.
 *
 * @internal
 */
final class Frame
{
    public const HELLO = 0x4C01;
    public const CHALLENGE = 0x4C02;
    public const PROOF = 0x4C03;
    public const WELCOME = 0x4C04;
    public const RECEIPT = 0x4C80;
    public const RESULT = 0x4C81;
    public const ABSENT = 0x4C82;
    public const ERROR = 0x4C83;

    /** @param array<int, string> $fields values by their tags */
    public function __construct(
        public readonly int $type,
        public readonly array $fields = [],
        public readonly string $body = '',
    ) {
    }

    /** The client's number, if the frame is about a request. */
    public function number(): ?int
    {
        $value = $this->fields[Tag::REQUEST] ?? '';
        return strlen($value) === 4 ? Bytes::u32($value, 0) : null;
    }
}

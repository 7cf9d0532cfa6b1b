<?php

declare(strict_types=1);

namespace Longwire\Client\Internal;

use Longwire\Client\InvalidArgument;
use Longwire\Client\ProtocolError;
use Longwire\Client\Receipt;
use Longwire\Client\Refused;
use Longwire\Client\Request;
use Longwire\Client\Target;

/**
 * Encodes requests and decodes answers (docs/router-protocol.md), without a socket or a clock.
 *
 * @internal
 */
final class Wire
{
    public const VERSION = 1;
    public const NONCE_BYTES = 32;
    private const MAX_FIELDS_BYTES = 65535;
    private const COUNTS = 8;
    /** More ids than this are sent as several commands, because a field has at most 65535 bytes, and an id has 16. */
    private const IDS_PER_COMMAND = 2000;

    public static function field(int $tag, string $value): string
    {
        if (strlen($value) > self::MAX_FIELDS_BYTES) {
            throw new InvalidArgument(sprintf('a field has %d bytes, at most 65535 are allowed', strlen($value)));
        }
        return pack('Cn', $tag, strlen($value)) . $value;
    }

    public static function frame(int $type, string $fields, string $body = ''): string
    {
        if (strlen($fields) > self::MAX_FIELDS_BYTES) {
            throw new InvalidArgument('too many exceptions: the fields of a request have at most 65535 bytes');
        }
        if (strlen($body) > 0xFFFFFFFF) {
            throw new InvalidArgument('a message has at most 4 GiB');
        }
        return pack('nnN', $type, strlen($fields), strlen($body)) . $fields . $body;
    }

    /** @return list<Request> the request, as several if it names too many sessions for one */
    public static function parts(Request $request): array
    {
        $to = $request->to;
        if ($to === null || count($to->names) <= self::IDS_PER_COMMAND) {
            return [$request];
        }
        $parts = [];
        foreach (array_chunk($to->names, self::IDS_PER_COMMAND) as $ids) {
            $parts[] = $request->for(Target::session(...$ids)->except(...$to->except));
        }
        return $parts;
    }

    /** @throws InvalidArgument if it cannot be sent; then no part of it is sent */
    public static function check(Request $request): void
    {
        foreach (self::parts($request) as $part) {
            self::frame($part->verb->value, self::fields($part, 0));
        }
    }

    /** @throws InvalidArgument */
    public static function request(Request $request, int $number): string
    {
        return self::frame($request->verb->value, self::fields($request, $number), $request->body);
    }

    /** @throws InvalidArgument */
    private static function fields(Request $request, int $number): string
    {
        $request->check();
        $fields = self::field(Tag::REQUEST, pack('N', $number));
        if ($request->to !== null) {
            $fields .= self::target($request->to);
        }
        $values = [
            Tag::NAME => $request->name,
            Tag::KIND => $request->kind !== null ? chr($request->kind->value) : null,
            Tag::KEY => $request->key,
            Tag::CODE => $request->code !== null ? pack('n', $request->code) : null,
            Tag::REASON => $request->reason,
            Tag::EXPECT => $request->expect,
            Tag::EXPECT_ABSENT => $request->expectAbsent ? '' : null,
            Tag::AFTER => $request->after,
            Tag::ID => $request->id,
            Tag::LIMIT => $request->limit !== null ? pack('n', $request->limit) : null,
        ];
        foreach ($values as $tag => $value) {
            if ($value !== null) {
                $fields .= self::field($tag, $value);
            }
        }
        return $fields;
    }

    private static function target(Target $target): string
    {
        $fields = self::field(self::tag($target), implode('', $target->names));
        foreach ($target->except as $except) {
            $fields .= self::field(self::tag($except) + Tag::EXCEPT, implode('', $except->names));
        }
        return $fields;
    }

    private static function tag(Target $target): int
    {
        return match ($target->kind) {
            'session' => Tag::SESSION,
            'uid' => Tag::UID,
            'channel' => Tag::CHANNEL,
            'all' => Tag::ALL,
        };
    }

    /** @throws Refused|ProtocolError */
    public static function receipt(Frame $answer): Receipt
    {
        self::throwError($answer);
        $counts = $answer->fields[Tag::COUNTS] ?? '';
        if ($answer->type !== Frame::RECEIPT || strlen($counts) < 4 * self::COUNTS) {
            throw new ProtocolError('the router sent another answer than a receipt', true);
        }
        // A later server may add counts after these.
        $count = static fn (int $place): int => Bytes::u32($counts, 4 * $place);
        $unreachable = $answer->fields[Tag::UNREACHABLE] ?? '';
        return new Receipt(
            $count(0),
            $count(1),
            $count(2),
            $count(3),
            $count(4),
            $count(5),
            $count(6),
            $count(7),
            $unreachable === '' ? [] : explode("\n", $unreachable),
            isset($answer->fields[Tag::ENGINE_DOWN]),
        );
    }

    /**
     * The body of a result; null if the object of the query does not exist.
     *
     * @throws Refused|ProtocolError
     */
    public static function result(Frame $answer): ?string
    {
        self::throwError($answer);
        return match ($answer->type) {
            Frame::RESULT => $answer->body,
            Frame::ABSENT => null,
            default => throw new ProtocolError('the router sent another answer than a result'),
        };
    }

    /** @throws Refused */
    public static function throwError(Frame $answer, bool $mayBeDone = false): void
    {
        if ($answer->type === Frame::ERROR) {
            throw new Refused($answer->fields[Tag::ERROR] ?? 'error', $answer->body, $mayBeDone);
        }
    }

    /** @return string 32 bytes that prove to the server that this client knows the secret */
    public static function clientProof(string $secret, string $clientNonce, string $serverNonce): string
    {
        return hash_hmac('sha256', "longwire router 1 client$clientNonce$serverNonce", $secret, true);
    }

    /** @return string 32 bytes that prove to this client that the server knows the secret */
    public static function serverProof(string $secret, string $clientNonce, string $serverNonce): string
    {
        return hash_hmac('sha256', "longwire router 1 server$serverNonce$clientNonce", $secret, true);
    }
}

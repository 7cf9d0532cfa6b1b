<?php

declare(strict_types=1);

namespace Longwire\Client;

use Longwire\Client\Internal\Check;

/**
 * One command or query, as plain data. A Router encodes it, a Batch collects it, and a FakeRouter runs and records it.
 *
 * The constructor checks nothing. check() does, and every router calls it before anything is sent.
 */
final class Request
{
    /** Maximum number of names or ids in one list. */
    public const MAX_LIMIT = 1000;

    /**
     * @param string      $body         the message, the last message of a close, the value of an attribute
     * @param string|null $name         the channel to join or leave, the uid to bind, the attribute's key
     * @param string|null $expect       sets the attribute only if this is its value
     * @param bool        $expectAbsent sets the attribute only if it does not exist
     * @param string|null $after        of a list: only entries after this name or id
     * @param int|null    $limit        of a list: at most this many entries; 0 gives only the count
     * @param string|null $id           id of the message, which a client of an event stream sends when it reconnects
     */
    public function __construct(
        public readonly Verb $verb,
        public readonly ?Target $to = null,
        public readonly string $body = '',
        public readonly ?string $name = null,
        public readonly ?Kind $kind = null,
        public readonly ?string $key = null,
        public readonly ?int $code = null,
        public readonly ?string $reason = null,
        public readonly ?string $expect = null,
        public readonly bool $expectAbsent = false,
        public readonly ?string $after = null,
        public readonly ?int $limit = null,
        public readonly ?string $id = null,
    ) {
    }

    public static function send(Target $to, string $message, ?Kind $kind = null, ?string $key = null, ?string $id = null): self
    {
        return new self(Verb::Send, $to, $message, kind: $kind, key: $key, id: $id);
    }

    public static function join(Target $to, string $channel): self
    {
        return new self(Verb::Join, $to, name: $channel);
    }

    public static function leave(Target $to, string $channel): self
    {
        return new self(Verb::Leave, $to, name: $channel);
    }

    public static function close(Target $to, int $code, string $reason, string $last, ?Kind $kind): self
    {
        return new self(Verb::Close, $to, $last, kind: $kind, code: $code, reason: $reason === '' ? null : $reason);
    }

    public static function bind(Target $to, string $uid): self
    {
        return new self(Verb::Bind, $to, name: $uid);
    }

    public static function unbind(Target $to): self
    {
        return new self(Verb::Unbind, $to);
    }

    public static function set(Target $to, string $key, string $value): self
    {
        return new self(Verb::Set, $to, $value, name: $key);
    }

    /** @param string|null $expected null: there is no such attribute now */
    public static function compareAndSet(Target $to, string $key, ?string $expected, string $value): self
    {
        return new self(Verb::Set, $to, $value, $key, expect: $expected, expectAbsent: $expected === null);
    }

    public static function delete(Target $to, string $key): self
    {
        return new self(Verb::Delete, $to, name: $key);
    }

    public static function exists(Target $to): self
    {
        return new self(Verb::Exists, $to);
    }

    /** The same for other sessions. */
    public function for(Target $to): self
    {
        return new self(
            $this->verb,
            $to,
            $this->body,
            $this->name,
            $this->kind,
            $this->key,
            $this->code,
            $this->reason,
            $this->expect,
            $this->expectAbsent,
            $this->after,
            $this->limit,
            $this->id,
        );
    }

    /** @throws InvalidArgument if the router would refuse it for its form */
    public function check(): void
    {
        if ($this->to !== null) {
            Check::target($this->to);
        }
        switch ($this->verb) {
            case Verb::Join:
            case Verb::Leave:
                Check::name('a channel', (string) $this->name);
                break;
            case Verb::Bind:
                Check::name('a uid', (string) $this->name);
                break;
            case Verb::Set:
            case Verb::Delete:
            case Verb::Attribute:
                Check::attributeKey((string) $this->name);
                break;
            default:
        }
        if ($this->key !== null) {
            Check::name('the key of a message', $this->key);
        }
        if ($this->id !== null) {
            Check::name('the id of a message', $this->id);
        }
        if ($this->code !== null) {
            Check::closeCode($this->code);
        }
        if ($this->reason !== null && preg_match('//u', $this->reason) !== 1) {
            throw new InvalidArgument('the reason of a close must be UTF-8');
        }
        if ($this->limit !== null && ($this->limit < 0 || $this->limit > self::MAX_LIMIT)) {
            throw new InvalidArgument('a limit must be 0 to ' . self::MAX_LIMIT . ", not $this->limit");
        }
    }
}

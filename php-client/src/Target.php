<?php

declare(strict_types=1);

namespace Longwire\Client;

/**
 * The sessions that a command is for: some by their ids, those of a uid, those in a channel, or all; with exceptions, if wanted.
 *
 * A target is not checked here. The router that gets it checks its names, so that nothing throws before a QuietRouter can catch it.
 */
final class Target
{
    /**
     * @param 'session'|'uid'|'channel'|'all' $kind
     * @param list<string>                    $names  the ids, or the one name
     * @param list<Target>                    $except
     */
    private function __construct(
        public readonly string $kind,
        public readonly array $names,
        public readonly array $except = [],
    ) {
    }

    /** Sessions by their ids; a repeated id counts once. Without ids the target is empty. */
    public static function session(string ...$ids): self
    {
        return new self('session', array_values(array_unique($ids)));
    }

    /** Every session that is bound to this uid. */
    public static function uid(string $uid): self
    {
        return new self('uid', [$uid]);
    }

    /** Every session in this channel. */
    public static function channel(string $channel): self
    {
        return new self('channel', [$channel]);
    }

    /** Every session. */
    public static function all(): self
    {
        return new self('all', []);
    }

    /**
     * Reads session:ID, uid:NAME, channel:NAME or all, as in a Longwire-To header.
     *
     * @throws InvalidArgument
     */
    public static function parse(string $text): self
    {
        [$kind, $name] = explode(':', $text, 2) + [1 => null];
        return match (true) {
            $text === 'all' => self::all(),
            $kind === 'session' && $name !== null => self::session($name),
            $kind === 'uid' && $name !== null => self::uid($name),
            $kind === 'channel' && $name !== null => self::channel($name),
            default => throw new InvalidArgument("$text is none of session:ID, uid:NAME, channel:NAME and all"),
        };
    }

    /** The same, except these. An exception cannot be Target::all(), or have exceptions itself. */
    public function except(Target ...$targets): self
    {
        return new self($this->kind, $this->names, [...$this->except, ...array_values($targets)]);
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client;

/**
 * The event for which a handler runs: a client has connected, sent a frame, or is gone; a session has joined or left a channel; or a
 * plain HTTP request has come (README.md, the contract with PHP).
 */
final class Event
{
    /**
     * @param string|null           $session    id of the event's session; null for a channel that is occupied or vacated, and for a request
     * @param int                   $seq        number of this event in its session, from 0; 0 for events without a session
     * @param Frame|null            $frame      the client's frame; only a message has one
     * @param string|null           $uid        the user whom the session is bound to
     * @param array<string, string> $attributes of the session, by their keys in small letters
     * @param string|null           $listener   its name in Longwire's configuration
     * @param string|null           $node       the node's name
     * @param string|null           $router     the address for a Router; null when the node has no router port
     * @param int|null              $closeCode  why the session ended; only a close has it
     * @param string|null           $closeReason one word of the table of close reasons
     * @param string|null           $channel    which channel was joined, left, occupied or vacated
     */
    public function __construct(
        public readonly EventKind $kind,
        public readonly ?string $session,
        public readonly int $seq = 0,
        public readonly ?Frame $frame = null,
        public readonly ?string $uid = null,
        public readonly array $attributes = [],
        public readonly ?string $listener = null,
        public readonly ?string $node = null,
        public readonly ?string $router = null,
        public readonly ?string $remoteAddress = null,
        public readonly ?int $remotePort = null,
        public readonly ?int $closeCode = null,
        public readonly ?string $closeReason = null,
        public readonly ?string $channel = null,
    ) {
    }

    /**
     * The event that this script handles.
     *
     * @param string $prefix the app's param_prefix, which is put before SESSIONID and EVENT
     *
     * @throws NoEvent if Longwire did not call it
     */
    public static function fromGlobals(string $prefix = ''): self
    {
        return self::fromParams($_SERVER, (string) file_get_contents('php://input'), $prefix);
    }

    /**
     * The same from other params and another body, such as those of a framework's request or of a test.
     *
     * @param array<mixed> $params
     *
     * @throws NoEvent
     */
    public static function fromParams(array $params, string $body, string $prefix = ''): self
    {
        $word = self::text($params, 'LONGWIRE_EVENT');
        if ($word === null) {
            throw new NoEvent('LONGWIRE_EVENT is missing: Longwire did not call this script');
        }
        $kind = EventKind::tryFrom($word)
            ?? throw new NoEvent("LONGWIRE_EVENT is '$word', an event that this version of the package does not know");
        $session = self::text($params, $prefix . 'SESSIONID');
        if ($session === null && ($kind->isOfSession() || $kind === EventKind::Join || $kind === EventKind::Leave)) {
            throw new NoEvent("{$prefix}SESSIONID is missing: is the app's param_prefix another one?");
        }
        $attributes = [];
        foreach (array_keys($params) as $name) {
            if (is_string($name) && str_starts_with($name, 'LONGWIRE_ATTR_')) {
                $attributes[strtolower(substr($name, strlen('LONGWIRE_ATTR_')))] = (string) self::text($params, $name);
            }
        }
        $frameKind = self::text($params, 'LONGWIRE_FRAME_TYPE') === Kind::Binary->word() ? Kind::Binary : Kind::Text;
        return new self(
            $kind,
            $session,
            self::number($params, 'LONGWIRE_SEQ') ?? 0,
            $kind === EventKind::Message ? new Frame($body, $frameKind) : null,
            self::text($params, 'LONGWIRE_UID'),
            $attributes,
            self::text($params, 'LONGWIRE_LISTENER'),
            self::text($params, 'LONGWIRE_NODE'),
            self::text($params, 'LONGWIRE_ROUTER'),
            self::text($params, 'REMOTE_ADDR'),
            self::number($params, 'REMOTE_PORT'),
            self::number($params, 'LONGWIRE_CLOSE_CODE'),
            self::text($params, 'LONGWIRE_CLOSE_REASON'),
            self::text($params, 'LONGWIRE_CHANNEL'),
        );
    }

    /**
     * A key that is the same each time that this event is handled, and different for every other event. It recognises repeated events.
     * Null for events without a number: channel events, because a session may join again, and requests.
     */
    public function id(): ?string
    {
        return $this->kind->isOfSession() ? "$this->session-$this->seq" : null;
    }

    /** @param array<mixed> $params */
    private static function text(array $params, string $name): ?string
    {
        $value = $params[$name] ?? null;
        return is_scalar($value) ? (string) $value : null;
    }

    /** @param array<mixed> $params */
    private static function number(array $params, string $name): ?int
    {
        $text = self::text($params, $name);
        return $text === null ? null : (int) $text;
    }
}

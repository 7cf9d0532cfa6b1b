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
     * @param array<string, mixed> $params
     *
     * @throws NoEvent
     */
    public static function fromParams(array $params, string $body, string $prefix = ''): self
    {
        $word = $params['LONGWIRE_EVENT'] ?? null;
        if (!is_string($word)) {
            throw new NoEvent('LONGWIRE_EVENT is missing: Longwire did not call this script');
        }
        $kind = EventKind::tryFrom($word)
            ?? throw new NoEvent("LONGWIRE_EVENT is '$word', an event that this version of the package does not know");
        $session = $params[$prefix . 'SESSIONID'] ?? null;
        if (!is_string($session) && ($kind->isOfSession() || $kind === EventKind::Join || $kind === EventKind::Leave)) {
            throw new NoEvent("{$prefix}SESSIONID is missing: is the app's param_prefix another one?");
        }
        $attributes = [];
        foreach ($params as $name => $value) {
            if (str_starts_with((string) $name, 'LONGWIRE_ATTR_')) {
                $attributes[strtolower(substr((string) $name, strlen('LONGWIRE_ATTR_')))] = (string) $value;
            }
        }
        $frameKind = ($params['LONGWIRE_FRAME_TYPE'] ?? '') === Kind::Binary->word() ? Kind::Binary : Kind::Text;
        return new self(
            $kind,
            $session,
            (int) ($params['LONGWIRE_SEQ'] ?? 0),
            $kind === EventKind::Message ? new Frame($body, $frameKind) : null,
            $params['LONGWIRE_UID'] ?? null,
            $attributes,
            $params['LONGWIRE_LISTENER'] ?? null,
            $params['LONGWIRE_NODE'] ?? null,
            $params['LONGWIRE_ROUTER'] ?? null,
            $params['REMOTE_ADDR'] ?? null,
            isset($params['REMOTE_PORT']) ? (int) $params['REMOTE_PORT'] : null,
            isset($params['LONGWIRE_CLOSE_CODE']) ? (int) $params['LONGWIRE_CLOSE_CODE'] : null,
            $params['LONGWIRE_CLOSE_REASON'] ?? null,
            $params['LONGWIRE_CHANNEL'] ?? null,
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
}

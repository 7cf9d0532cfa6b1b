<?php

declare(strict_types=1);

namespace Longwire\Client;

/**
 * The commands and queries of a router. Router sends them to a running one; Testing\FakeRouter runs them in memory.
 *
 * On failure every method throws an Exception of this package, and nothing else.
 *
 * @phpstan-type SessionData array{session: string, uid: ?string, attributes: array<string, string>, channels: list<string>,
 *     app: string, listener: string, framing: string, queued_bytes: int, seconds: int}
 * @phpstan-type ChannelPage array{channel: string, count: int, sessions: list<string>, next?: string}
 * @phpstan-type UidPage array{uid: string, count: int, sessions: list<string>, next?: string}
 * @phpstan-type ChannelsPage array{count: int, channels: list<array{channel: string, count: int}>, next?: string}
 * @phpstan-type SessionsPage array{count: int, sessions: list<string>, next?: string}
 * @phpstan-type NodeData array{node: string, number: int, version: string, sessions: int, channels: int, uids: int,
 *     draining: bool, seconds: int}
 * @phpstan-type NodesData array{nodes: list<NodeData>, unreachable?: list<string>, engine_down?: true}
 */
interface RouterInterface
{
    /**
     * Sends a frame.
     *
     * @param Kind|null   $kind null: text if the message is UTF-8
     * @param string|null $key  for channels that keep only the latest message per key while a client does not read
     */
    public function send(Target $to, string $message, ?Kind $kind = null, ?string $key = null, ?string $id = null): Receipt;

    /** Sends a frame to every session in a channel. */
    public function publish(string $channel, string $message, ?Kind $kind = null, ?string $key = null, ?string $id = null): Receipt;

    /** Joins sessions to a channel. */
    public function join(Target $who, string $channel): Receipt;

    /** Removes sessions from a channel. */
    public function leave(Target $who, string $channel): Receipt;

    /**
     * Closes sessions.
     *
     * @param int    $code   1000-1003, 1007-1014 or 3000-4999
     * @param string $reason for the client; at most 123 bytes of it are sent
     * @param string $last   a message that is sent before; none if empty
     */
    public function close(
        Target $who,
        int $code = 1000,
        string $reason = '',
        string $last = '',
        ?Kind $kind = null,
    ): Receipt;

    /** Binds sessions to a user, instead of an earlier one: LONGWIRE_UID from their next event on. */
    public function bind(Target $who, string $uid): Receipt;

    /** Removes the binding to a user. */
    public function unbind(Target $who): Receipt;

    /** Sets an attribute: LONGWIRE_ATTR_KEY from the next event on. Capital letters in the key become small letters. */
    public function set(Target $who, string $key, string $value): Receipt;

    /**
     * Sets it where it has the expected value; the receipt counts the other sessions as refused.
     *
     * @param string|null $expected null: there is no such attribute
     */
    public function compareAndSet(Target $who, string $key, ?string $expected, string $value): Receipt;

    /** Deletes an attribute. */
    public function delete(Target $who, string $key): Receipt;

    /** Does nothing. The receipt has the number of sessions that exist (reached) and of ids that do not (gone). */
    public function exists(Target $who): Receipt;

    /** The value of an attribute; null if there is no such attribute or session. */
    public function attribute(string $session, string $key): ?string;

    /**
     * All data of a session; null if it is gone.
     *
     * @return SessionData|null
     */
    public function session(string $session): ?array;

    /**
     * The sessions in a channel. If the list goes on there is a `next`: ask again with it as $after.
     *
     * @param int $limit at most 1000; 0 gives only the count
     *
     * @return ChannelPage
     */
    public function channel(string $channel, ?string $after = null, int $limit = 100): array;

    /**
     * The sessions of a user.
     *
     * @return UidPage
     */
    public function uid(string $uid, ?string $after = null, int $limit = 100): array;

    /** @return ChannelsPage */
    public function channels(?string $after = null, int $limit = 100): array;

    /** @return SessionsPage */
    public function sessions(?string $after = null, int $limit = 100): array;

    /** @return NodeData */
    public function node(): array;

    /**
     * All nodes that answer, ordered by number; `unreachable` and `engine_down` are there if some did not answer.
     *
     * @return NodesData
     */
    public function nodes(): array;

    /** Collects commands, to be sent all at once. */
    public function batch(): Batch;

    /** The same methods for a page that must not fail: they return null instead of throwing, and write a line to the log. */
    public function quietly(): QuietRouter;
}

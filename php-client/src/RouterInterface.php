<?php

declare(strict_types=1);

namespace Longwire\Client;

/**
 * What can be asked of a router. A Router asks a running one; Testing\FakeRouter does it in memory.
 *
 * Everything here throws an Exception of this package when it cannot be done, and nothing else.
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

    /** The same, to everybody in a channel. */
    public function publish(string $channel, string $message, ?Kind $kind = null, ?string $key = null, ?string $id = null): Receipt;

    /** Sessions join a channel. */
    public function join(Target $who, string $channel): Receipt;

    /** They leave it. */
    public function leave(Target $who, string $channel): Receipt;

    /**
     * Sessions are closed.
     *
     * @param int    $code   1000-1003, 1007-1014 or 3000-4999
     * @param string $reason for the client; at most 123 bytes of it are sent
     * @param string $last   a message that is sent before; none when empty
     */
    public function close(
        Target $who,
        int $code = 1000,
        string $reason = '',
        string $last = '',
        ?Kind $kind = null,
    ): Receipt;

    /** Sessions belong to a user from now on, and to no other: LONGWIRE_UID at their next event. */
    public function bind(Target $who, string $uid): Receipt;

    /** They belong to nobody. */
    public function unbind(Target $who): Receipt;

    /** Sets an attribute: LONGWIRE_ATTR_KEY at the next event. Capitals in the key are taken as small letters. */
    public function set(Target $who, string $key, string $value): Receipt;

    /**
     * Sets it where it is as expected; the receipt counts the other sessions as refused.
     *
     * @param string|null $expected null: there is no such attribute
     */
    public function compareAndSet(Target $who, string $key, ?string $expected, string $value): Receipt;

    /** Deletes an attribute. */
    public function delete(Target $who, string $key): Receipt;

    /** Does nothing: the receipt says how many sessions are there (reached), and how many of the ids are not (gone). */
    public function exists(Target $who): Receipt;

    /** The value of an attribute; null when there is none, or no session. */
    public function attribute(string $session, string $key): ?string;

    /**
     * Everything of a session; null when it is gone.
     *
     * @return array{session: string, uid: ?string, attributes: array<string, string>, channels: list<string>,
     *     app: string, listener: string, framing: string, queued_bytes: int, seconds: int}|null
     */
    public function session(string $session): ?array;

    /**
     * Who is in a channel. There is a next when the list goes on: ask again with it as $after.
     *
     * @param int $limit at most 1000; 0 gives only the count
     *
     * @return array{channel: string, count: int, sessions: list<string>, next?: string}
     */
    public function channel(string $channel, ?string $after = null, int $limit = 100): array;

    /**
     * The sessions of a user.
     *
     * @return array{uid: string, count: int, sessions: list<string>, next?: string}
     */
    public function uid(string $uid, ?string $after = null, int $limit = 100): array;

    /** @return array{count: int, channels: list<array{channel: string, count: int}>, next?: string} */
    public function channels(?string $after = null, int $limit = 100): array;

    /** @return array{count: int, sessions: list<string>, next?: string} */
    public function sessions(?string $after = null, int $limit = 100): array;

    /**
     * @return array{node: string, number: int, version: string, sessions: int, channels: int, uids: int,
     *     draining: bool, seconds: int}
     */
    public function node(): array;

    /**
     * Of every node that answers, by their numbers; `unreachable` and `engine_down` are there if some did not.
     *
     * @return array{nodes: list<array{node: string, number: int, version: string, sessions: int, channels: int,
     *     uids: int, draining: bool, seconds: int}>, unreachable?: list<string>, engine_down?: true}
     */
    public function nodes(): array;

    /** Collects commands, to be sent all at once. */
    public function batch(): Batch;

    /** The same verbs for a page that must not fail: null instead of an exception, and a line in the log. */
    public function quietly(): QuietRouter;
}

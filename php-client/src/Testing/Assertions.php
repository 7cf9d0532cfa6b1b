<?php

declare(strict_types=1);

namespace Longwire\Client\Testing;

use Longwire\Client\Internal\Assertion;
use Longwire\Client\Internal\Shown;
use Longwire\Client\Request;
use Longwire\Client\Target;
use Longwire\Client\Verb;

/**
 * The assertions of a FakeRouter. They look at the commands that it has done; failed and refused ones do not count.
 *
 * A receiver is the id of a session, or a Target. A command for several sessions is one for each of them. Exceptions of a command are
 * ignored, unless the expected target has exceptions too: then they must be the same.
 *
 * A message is the whole text, or a callable that takes the text and the Request and returns whether it is the expected one. Null stands
 * for any message.
 *
 * @internal part of FakeRouter
 */
trait Assertions
{
    /** @var list<Request> the commands that were done, the oldest first */
    private array $done = [];

    /** A message was sent to this receiver, by send() or publish(). */
    public function assertSent(string|Target $to, string|callable|null $message = null): void
    {
        $what = Shown::message($message) . ' to ' . Shown::target($to);
        Assertion::that($this->sent($to, $message) !== [], fn (): string => "Expected $what. {$this->doneShown(Verb::Send)}");
    }

    public function assertNotSent(string|Target $to, string|callable|null $message = null): void
    {
        $this->assertSentTimes($to, 0, $message);
    }

    /** Such a message was sent this many times. */
    public function assertSentTimes(string|Target $to, int $times, string|callable|null $message = null): void
    {
        $what = Shown::message($message) . ' to ' . Shown::target($to);
        $count = count($this->sent($to, $message));
        $failure = fn (): string => "Expected $what $times times, not $count times. {$this->doneShown(Verb::Send)}";
        Assertion::that($count === $times, $failure);
    }

    /** A message was sent to a user. */
    public function assertSentToUid(string $uid, string|callable|null $message = null): void
    {
        $this->assertSent(Target::uid($uid), $message);
    }

    /** A message was published in this channel. */
    public function assertPublished(string $channel, string|callable|null $message = null): void
    {
        $this->assertSent(Target::channel($channel), $message);
    }

    public function assertNotPublished(string $channel, string|callable|null $message = null): void
    {
        $this->assertSentTimes(Target::channel($channel), 0, $message);
    }

    /** Such a message was published this many times. */
    public function assertPublishedTimes(string $channel, int $times, string|callable|null $message = null): void
    {
        $this->assertSentTimes(Target::channel($channel), $times, $message);
    }

    /** No message was sent or published. The last message of a close is none. */
    public function assertNothingSent(): void
    {
        Assertion::that($this->of(Verb::Send) === [], fn (): string => "Expected no message. {$this->doneShown(Verb::Send)}");
    }

    public function assertJoined(string|Target $who, string $channel): void
    {
        $this->assertDone(Verb::Join, $who, static fn (Request $request): bool => $request->name === $channel, Shown::text($channel));
    }

    public function assertLeft(string|Target $who, string $channel): void
    {
        $this->assertDone(Verb::Leave, $who, static fn (Request $request): bool => $request->name === $channel, Shown::text($channel));
    }

    /** Sessions were closed; with this code, if one is given. */
    public function assertClosed(string|Target $who, ?int $code = null): void
    {
        $isMeant = static fn (Request $request): bool => $code === null || $request->code === $code;
        $this->assertDone(Verb::Close, $who, $isMeant, $code === null ? 'any code' : "code $code");
    }

    /** @param \Closure(Request): bool $isMeant */
    private function assertDone(Verb $verb, string|Target $who, \Closure $isMeant, string $with): void
    {
        $isFound = static fn (Request $request): bool => self::isFor($request, $who) && $isMeant($request);
        $what = strtolower($verb->name) . ' of ' . Shown::target($who) . " with $with";
        Assertion::that(
            array_filter($this->of($verb), $isFound) !== [],
            fn (): string => "Expected $what. {$this->doneShown($verb)}",
        );
    }

    /** @return list<Request> */
    private function of(Verb $verb): array
    {
        return array_values(array_filter($this->done, static fn (Request $request): bool => $request->verb === $verb));
    }

    private function doneShown(Verb $verb): string
    {
        return Shown::list("{$verb->name} commands that were done", array_map(Shown::request(...), $this->of($verb)));
    }

    /** @return list<Request> */
    private function sent(string|Target $to, string|callable|null $message): array
    {
        $isMeant = static fn (Request $request): bool => self::isFor($request, $to) && match (true) {
            $message === null => true,
            is_string($message) => $request->body === $message,
            default => (bool) $message($request->body, $request),
        };
        return array_values(array_filter($this->of(Verb::Send), $isMeant));
    }

    private static function isFor(Request $request, string|Target $expected): bool
    {
        $expected = is_string($expected) ? Target::session($expected) : $expected;
        $to = $request->to;
        if ($to === null || $to->kind !== $expected->kind || array_diff($expected->names, $to->names) !== []) {
            return false;
        }
        if ($expected->except !== []) {
            return $expected->except == $to->except;
        }
        foreach ($to->except as $except) {
            // It names the session and leaves it out.
            if ($except->kind === 'session' && array_intersect($expected->names, $except->names) !== []) {
                return $to->kind !== 'session';
            }
        }
        return true;
    }
}

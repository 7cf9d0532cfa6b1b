<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use Longwire\Client\ConnectFailed;
use Longwire\Client\Kind;
use Longwire\Client\Request;
use Longwire\Client\Target;
use Longwire\Client\Testing\FakeMessage;
use Longwire\Client\Testing\FakeRouter;
use Longwire\Client\Testing\FakeSession;
use PHPUnit\Framework\AssertionFailedError;
use PHPUnit\Framework\TestCase;

/** The assertions of a FakeRouter and of its sessions, each as it holds and as it fails. */
final class AssertionsTest extends TestCase
{
    private FakeRouter $fake;
    private FakeSession $ada;
    private FakeSession $bob;

    protected function setUp(): void
    {
        $this->fake = new FakeRouter('strlen');
        $this->ada = $this->fake->connect();
        $this->bob = $this->fake->connect();
    }

    /** @param callable(): void $assertion counts as one assertion, and fails with this text */
    private function assertFails(string $text, callable $assertion): void
    {
        try {
            $assertion();
        } catch (AssertionFailedError $failure) {
            $this->assertStringContainsString($text, $failure->getMessage());
            return;
        }
        $this->fail("it holds: $text");
    }

    public function testSentToASession(): void
    {
        $this->fake->send(Target::session($this->ada->id, $this->bob->id), 'hello');
        $both = Target::session($this->bob->id, $this->ada->id);
        foreach ([$this->ada->id, $this->bob->id, Target::session($this->ada->id), $both] as $to) {
            $this->fake->assertSent($to);
            $this->fake->assertSent($to, 'hello');
        }
        $isMeant = static fn (string $text, Request $request): bool => $text . $request->body === 'hellohello';
        $this->fake->assertSent($this->ada->id, $isMeant);
        $nobody = 'Fake000000000003';
        $this->fake->assertNotSent($nobody);
        $this->fake->assertNotSent($this->ada->id, 'hell');
        $this->assertFails("a message to session $nobody. ", fn () => $this->fake->assertSent($nobody));
        $this->assertFails("the message \"hell\" to session {$this->ada->id}. ", fn () => $this->fake->assertSent($this->ada->id, 'hell'));
        $this->assertFails(
            "to session {$this->ada->id}, {$this->bob->id}: \"hello\"",
            fn () => $this->fake->assertSent($this->ada->id, static fn (): bool => false),
        );
        $this->assertFails('0 times, not 1 times', fn () => $this->fake->assertNotSent($this->ada->id));
        $this->assertFails('Expected no message', fn () => $this->fake->assertNothingSent());
        $this->assertFails('to uid ', fn () => $this->fake->assertSentToUid($this->ada->id));
    }

    public function testTextIsNoCallable(): void
    {
        $this->fake->send(Target::session($this->ada->id), 'time');
        $this->fake->assertSent($this->ada->id, 'time');
        $this->assertFails('"phpversion"', fn () => $this->fake->assertSent($this->ada->id, 'phpversion'));
    }

    public function testExceptions(): void
    {
        $ada = Target::session($this->ada->id);
        $this->fake->send(Target::session($this->ada->id, $this->bob->id)->except($ada), 'x');
        $this->fake->assertSent($this->bob->id, 'x');
        $this->fake->assertNotSent($this->ada->id);
        $this->fake->send(Target::channel('news')->except($ada), 'y');
        $this->fake->assertPublished('news', 'y');
        $this->fake->assertSent(Target::channel('news')->except($ada), 'y');
        $other = Target::channel('news')->except(Target::session($this->bob->id));
        $this->assertFails("to channel news except session {$this->ada->id}: \"y\"", fn () => $this->fake->assertSent($other));
    }

    public function testPublished(): void
    {
        $this->fake->assertNothingSent();
        $this->assertFails('that were done: none', fn () => $this->fake->assertPublished('news'));
        $this->fake->publish('news', 'one');
        $this->fake->batch()->publish('news', 'two')->publish('sport', 'two')->run();
        $this->fake->assertPublished('news', 'two');
        $this->fake->assertPublishedTimes('news', 2);
        $this->fake->assertPublishedTimes('news', 1, 'two');
        $this->fake->assertSentTimes(Target::channel('sport'), 1);
        $this->fake->assertNotPublished('sport', 'one');
        $this->assertFails('2 times, not 1 times', fn () => $this->fake->assertPublishedTimes('sport', 2));
        $this->assertFails('0 times, not 2 times', fn () => $this->fake->assertNotPublished('news'));
        $this->fake->send(Target::all(), 'three');
        $this->fake->assertSent(Target::all(), 'three');
        $this->fake->send(Target::uid('42'), 'four');
        $this->fake->assertSentToUid('42', 'four');
        $this->assertFails("to all: \"three\"\n  to uid 42: \"four\"", fn () => $this->fake->assertSentToUid('43'));
    }

    public function testFailedAndRefusedCommandsWereNotSent(): void
    {
        $this->fake->failWith(new ConnectFailed('down'));
        $this->fake->quietly()->publish('news', 'x');
        $this->fake->failWith(null);
        $this->fake->quietly()->send(Target::all(), "\xFF", Kind::Text);
        $this->fake->quietly()->publish('', 'x');
        $this->fake->node();
        $this->fake->assertNothingSent();
    }

    public function testMembershipAndClose(): void
    {
        $this->fake->join(Target::session($this->ada->id), 'news');
        $this->fake->leave(Target::all(), 'news');
        $this->fake->close(Target::session($this->ada->id), 4001, last: 'bye');
        $this->fake->assertJoined($this->ada->id, 'news');
        $this->fake->assertLeft(Target::all(), 'news');
        $this->fake->assertClosed($this->ada->id);
        $this->fake->assertClosed($this->ada->id, 4001);
        $this->fake->assertNothingSent();
        $this->assertFails("{$this->ada->id}: \"news\"", fn () => $this->fake->assertJoined($this->ada->id, 'sport'));
        $this->assertFails('leave of session', fn () => $this->fake->assertLeft($this->ada->id, 'news'));
        $this->assertFails("{$this->ada->id} with 4001", fn () => $this->fake->assertClosed($this->ada->id, 4002));
        $this->assertFails('with any code', fn () => $this->fake->assertClosed($this->bob->id));
    }

    public function testReceived(): void
    {
        $this->fake->join(Target::session($this->ada->id), 'news');
        $this->fake->publish('news', "\xFF\n", key: 'k');
        $this->ada->assertReceived("\xFF\n");
        $this->ada->assertReceived(static fn (string $text, FakeMessage $message): bool => $message->key === 'k');
        $this->bob->assertNothingReceived();
        $this->assertFails('Messages that it has received: none', fn () => $this->bob->assertReceived());
        $this->assertFails('"\377\n"', fn () => $this->ada->assertReceived('other'));
        $this->assertFails('Expected no message', fn () => $this->ada->assertNothingReceived());
    }

    public function testEachCountsAsOneAssertion(): void
    {
        $before = self::getCount();
        $this->fake->assertNothingSent();
        $this->ada->assertNothingReceived();
        $this->fake->assertNotSent($this->ada->id);
        $this->assertSame(3, self::getCount() - $before);
    }

    public function testWithoutPhpunitTheyThrowAnAssertionError(): void
    {
        $code = 'spl_autoload_register(static function (string $class): void {
            str_starts_with($class, "Longwire\\\\") && require "src/" . strtr(substr($class, 16), "\\\\", "/") . ".php";
        });
        $fake = new Longwire\Client\Testing\FakeRouter();
        $fake->assertNothingSent();
        $fake->publish("news", "x");
        try {
            $fake->assertNothingSent();
        } catch (AssertionError $error) {
            echo $error->getMessage();
        }';
        exec(sprintf('cd %s && %s -r %s 2>&1', escapeshellarg(dirname(__DIR__)), PHP_BINARY, escapeshellarg($code)), $lines);
        $this->assertSame(['Expected no message. Send commands that were done:', '  to channel news: "x"'], $lines);
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use Longwire\Client\ConnectFailed;
use Longwire\Client\Kind;
use Longwire\Client\Request;
use Longwire\Client\RouterInterface;
use Longwire\Client\Target;
use Longwire\Client\Testing\FakeRouter;
use Longwire\Client\Testing\FakeSession;
use Longwire\Client\Verb;

final class FakeRouterTest extends RouterTestCase
{
    /** @var array<string, FakeSession> */
    private array $sessions = [];
    /** @var array<string, int> messages that frames() gave, by session */
    private array $read = [];

    protected function makeRouter(): RouterInterface
    {
        return new FakeRouter();
    }

    protected function connect(): string
    {
        $session = $this->router->connect();
        $this->sessions[$session->id] = $session;
        return $session->id;
    }

    protected function frames(string $id, int $count): array
    {
        $session = $this->sessions[$id];
        $end = $session->closeCode === null ? [] : [null];
        $frames = array_slice([...$session->bodies(), ...$end], $this->read[$id] ?? 0, $count);
        $this->read[$id] = ($this->read[$id] ?? 0) + $count;
        return $frames;
    }

    protected function leave(): void
    {
        array_map($this->router->disconnect(...), $this->sessions);
    }

    public function testWhatWasAskedForIsRemembered(): void
    {
        $fake = new FakeRouter();
        $ada = $fake->connect();
        $fake->publish('news', 'hello', key: 'k');
        $fake->node();
        $verbs = array_map(static fn (Request $request): Verb => $request->verb, $fake->requests());
        $this->assertSame([Verb::Send, Verb::Node], $verbs);
        $this->assertEquals(Request::send(Target::channel('news'), 'hello', null, 'k'), $fake->requests()[0]);

        $fake->send(Target::all(), "\xFF", key: 'price');
        $fake->close(Target::all(), 4001, 'enough');
        $this->assertSame([Kind::Binary, 'price'], [$ada->received[0]->kind, $ada->received[0]->key]);
        $this->assertSame([4001, 'enough'], [$ada->closeCode, $ada->closeReason]);
    }

    public function testFailuresArePlayed(): void
    {
        $lines = [];
        $fake = new FakeRouter(static function (string $line) use (&$lines): void {
            $lines[] = $line;
        });
        $ada = $fake->connect();
        $fake->failWith(new ConnectFailed('no router: it is being moved'));
        $this->assertNull($fake->quietly()->send(Target::all(), 'x'));
        $this->assertSame(['longwire/client: no router: it is being moved'], $lines);
        $fake->failWith(null);
        $this->assertSame(1, $fake->send(Target::all(), 'y')->reached);
        $this->assertSame(['y'], $ada->bodies());
    }
}

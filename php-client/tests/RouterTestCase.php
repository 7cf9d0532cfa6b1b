<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use Longwire\Client\Exception;
use Longwire\Client\Kind;
use Longwire\Client\Receipt;
use Longwire\Client\Refused;
use Longwire\Client\RouterInterface;
use Longwire\Client\Target;
use PHPUnit\Framework\TestCase;

/** Tests for every router: a running one with either client, and the one in memory. */
abstract class RouterTestCase extends TestCase
{
    private const NOBODY = 'AAAAAAAAAAAAAAAA';

    protected RouterInterface $router;
    /** A prefix for names of channels and users, so that tests on one node do not interfere. */
    protected string $room;

    abstract protected function makeRouter(): RouterInterface;

    /** A client connects: its session id. */
    abstract protected function connect(): string;

    /** @return list<string|null> the next messages that it gets, waiting for them; null: it is closed */
    abstract protected function frames(string $id, int $count): array;

    /** All clients leave. */
    abstract protected function leave(): void;

    protected function setUp(): void
    {
        $this->router = $this->makeRouter();
        $this->room = 'room ' . bin2hex(random_bytes(6));
    }

    protected function tearDown(): void
    {
        $this->leave();
        Patience::until('the sessions of this test end', fn (): bool => $this->router->node()['sessions'] === 0);
    }

    public function testMessagesReachThoseWhomTheTargetNames(): void
    {
        [$a, $b, $c] = [$this->connect(), $this->connect(), $this->connect()];
        $this->assertEquals(new Receipt(reached: 2), $this->router->join(Target::session($a, $b), $this->room));
        $this->assertEquals(new Receipt(reached: 1), $this->router->bind(Target::session($c), "user $this->room"));

        $this->assertEquals(new Receipt(reached: 1), $this->router->send(Target::session($a), 'to a'));
        $this->assertEquals(new Receipt(reached: 1), $this->router->send(Target::session($a, $a), 'once'));
        $this->assertEquals(new Receipt(reached: 2), $this->router->publish($this->room, 'to the room'));
        $this->assertEquals(new Receipt(reached: 1), $this->router->send(Target::uid("user $this->room"), 'to c'));
        $this->assertEquals(new Receipt(reached: 3), $this->router->send(Target::all(), 'to all'));
        $this->assertSame(['to a', 'once', 'to the room', 'to all'], $this->frames($a, 4));
        $this->assertSame(['to the room', 'to all'], $this->frames($b, 2));
        $this->assertSame(['to c', 'to all'], $this->frames($c, 2));
    }

    public function testThoseWhoAreLeftOutGetNothing(): void
    {
        [$a, $b, $c] = [$this->connect(), $this->connect(), $this->connect()];
        $this->router->join(Target::session($a, $b, $c), $this->room);
        $this->router->join(Target::session($b), "$this->room 2");
        $this->router->bind(Target::session($c), $this->room);
        $room = Target::channel($this->room);
        $this->assertSame(2, $this->router->send($room->except(Target::session($a)), '1')->reached);
        $this->assertSame(1, $this->router->send($room->except(Target::session($a, $b)), '2')->reached);
        $this->assertSame(2, $this->router->send($room->except(Target::uid($this->room)), '3')->reached);
        $others = $room->except(Target::channel("$this->room 2"), Target::uid($this->room));
        $this->assertSame(1, $this->router->send($others, '4')->reached);
        $this->assertSame(0, $this->router->send(Target::session($a)->except(Target::session($a)), '5')->reached);
        $this->assertSame(3, $this->router->send(Target::all(), 'end')->reached);
        $this->assertSame(['3', '4', 'end'], $this->frames($a, 3));
        $this->assertSame(['1', '3', 'end'], $this->frames($b, 3));
        $this->assertSame(['1', '2', 'end'], $this->frames($c, 3));
    }

    public function testNobodyIsNoError(): void
    {
        $a = $this->connect();
        $this->assertEquals(new Receipt(), $this->router->publish($this->room, 'x'));
        $this->assertEquals(new Receipt(), $this->router->send(Target::uid($this->room), 'x'));
        $both = Target::session(self::NOBODY, $a);
        $this->assertEquals(new Receipt(reached: 1, gone: 1), $this->router->send($both, 'x'));
        $this->assertEquals(new Receipt(reached: 1, gone: 1), $this->router->exists($both));
        $this->assertNull($this->router->session(self::NOBODY));
        $this->assertNull($this->router->attribute(self::NOBODY, 'x'));
        $this->assertNull($this->router->attribute($a, 'x'));
        $this->assertEquals(
            ['channel' => $this->room, 'count' => 0, 'sessions' => []],
            $this->router->channel($this->room),
        );
    }

    public function testMoreSessionsThanOneCommandHolds(): void
    {
        $a = $this->connect();
        $ids = array_map(static fn (int $n): string => sprintf('A%015d', $n), range(1, 9000));
        $receipt = $this->router->send(Target::session($a, ...$ids), 'x');
        $this->assertEquals(new Receipt(reached: 1, gone: 9000), $receipt);
        $this->assertSame(['x'], $this->frames($a, 1));
    }

    public function testChannelsUidsAndAttributesComeAndGo(): void
    {
        $a = $this->connect();
        $self = Target::session($a);
        foreach (['one', 'two', 'three'] as $n) {
            $this->assertSame(1, $this->router->join($self, "$this->room $n")->reached);
        }
        $this->assertSame(1, $this->router->join($self, "$this->room one")->reached, 'it is in it');
        $this->assertSame(1, $this->router->leave($self, "$this->room two")->reached);
        $this->assertSame(1, $this->router->bind($self, $this->room)->reached);
        $this->assertSame(1, $this->router->set(Target::uid($this->room), 'Role', "guest\nsince today")->reached);
        $this->assertSame("guest\nsince today", $this->router->attribute($a, 'role'));
        $this->assertSame(1, $this->router->set($self, 'gone', '')->reached);
        $this->assertSame('', $this->router->attribute($a, 'gone'));
        $this->assertSame(1, $this->router->delete($self, 'GONE')->reached);
        $this->assertNull($this->router->attribute($a, 'gone'));

        $session = $this->router->session($a);
        $this->assertSame($a, $session['session']);
        $this->assertSame($this->room, $session['uid']);
        $this->assertSame(['role' => "guest\nsince today"], $session['attributes']);
        $this->assertEqualsCanonicalizing(["$this->room one", "$this->room three"], $session['channels']);
        $this->assertSame([$a], $this->router->uid($this->room)['sessions']);
        $this->assertSame(1, $this->router->unbind($self)->reached);
        $this->assertNull($this->router->session($a)['uid']);
        $this->assertSame(0, $this->router->uid($this->room, limit: 0)['count']);
    }

    public function testAttributeIsSetOnlyIfItIsAsExpected(): void
    {
        $a = $this->connect();
        $self = Target::session($a);
        $set = new Receipt(reached: 1);
        $refused = new Receipt(refused: 1);
        $this->assertEquals($refused, $this->router->compareAndSet($self, 'turn', 'x', 'y'));
        $this->assertEquals($set, $this->router->compareAndSet($self, 'turn', null, 'x'));
        $this->assertEquals($refused, $this->router->compareAndSet($self, 'turn', null, 'z'));
        $this->assertEquals($refused, $this->router->compareAndSet($self, 'turn', '', 'z'));
        $this->assertEquals($set, $this->router->compareAndSet($self, 'turn', 'x', ''));
        $this->assertEquals($set, $this->router->compareAndSet($self, 'turn', '', 'end'));
        $this->assertSame('end', $this->router->attribute($a, 'turn'));
    }

    public function testSessionIsClosedAfterALastMessage(): void
    {
        [$a, $b] = [$this->connect(), $this->connect()];
        $this->assertSame(1, $this->router->close(Target::session($a), 4001, 'enough', 'bye')->reached);
        $this->assertSame(['bye', null], $this->frames($a, 2));
        $this->assertSame(1, $this->router->close(Target::session($b))->reached);
        $this->assertSame([null], $this->frames($b, 1));
        $this->assertSame(2, $this->router->exists(Target::session($a, $b))->gone);
    }

    public function testTextThatIsNotUtf8IsRefusedAndTheRestGoesOn(): void
    {
        $a = $this->connect();
        try {
            $this->router->send(Target::session($a), "\xFF", Kind::Text);
            $this->fail('it was not refused');
        } catch (Refused $refused) {
            $this->assertSame('not_text', $refused->error);
            $this->assertFalse($refused->mayBeDone());
        }
        $this->assertSame(1, $this->router->send(Target::session($a), "\xFF\0", Kind::Binary)->reached);
        $this->assertSame(1, $this->router->send(Target::session($a), "\xFF\xFF")->reached);
        $this->assertSame(1, $this->router->send(Target::session($a), 'straße', Kind::Text, 'street')->reached);
        $this->assertSame(["\xFF\0", "\xFF\xFF", 'straße'], $this->frames($a, 3));
    }

    public function testBatchIsDoneInItsOrder(): void
    {
        [$a, $b] = [$this->connect(), $this->connect()];
        $this->assertSame([], $this->router->batch()->run());
        $answers = $this->router->batch()
            ->join(Target::session($a, $b), $this->room)
            ->publish($this->room, 'one')
            ->send(Target::channel($this->room), "\xFF", Kind::Text)
            ->join(Target::session('no session'), $this->room)
            ->leave(Target::session($b), $this->room)
            ->publish($this->room, 'two')
            ->close(Target::session($b), 4000, 'enough', 'bye')
            ->run();
        // One is refused by the router, one before it is sent. Both keep their places, and the other commands are run.
        $this->assertInstanceOf(Refused::class, $answers[2]);
        $this->assertInstanceOf(Refused::class, $answers[3]);
        $this->assertFalse($answers[3]->mayBeDone());
        $this->assertSame([0, 1, 2, 3, 4, 5, 6], array_keys($answers));
        unset($answers[2], $answers[3]);
        $reached = array_map(static fn (Receipt $receipt): int => $receipt->reached, array_values($answers));
        $this->assertSame([2, 2, 1, 1, 1], $reached);
        $this->assertSame(['one', 'two'], $this->frames($a, 2));
        $this->assertSame(['one', 'bye', null], $this->frames($b, 3));
    }

    public function testThousandsOfCommandsGoOutAtOnce(): void
    {
        $a = $this->connect();
        $batch = $this->router->batch();
        for ($i = 0; $i < 3000; $i++) {
            $batch->send(Target::session($a), (string) $i);
        }
        $delivered = array_map(static fn (Receipt $receipt): int => $receipt->delivered(), $batch->run());
        $this->assertSame(array_fill(0, 3000, 1), $delivered);
        $this->assertSame(array_map('strval', range(0, 2999)), $this->frames($a, 3000));
    }

    public function testListsAreReadPageByPage(): void
    {
        $ids = array_map(fn (): string => $this->connect(), range(1, 5));
        $this->router->join(Target::session(...$ids), $this->room);
        $this->router->join(Target::session(...$ids), "$this->room, the hall");
        $this->router->bind(Target::session(...$ids), $this->room);
        $this->router->leave(Target::session($ids[0]), "$this->room, the hall");
        sort($ids, SORT_STRING);
        $pages = [
            fn (?string $after): array => $this->router->channel($this->room, $after, 2),
            fn (?string $after): array => $this->router->uid($this->room, $after, 2),
            fn (?string $after): array => $this->router->sessions($after, 2),
        ];
        foreach ($pages as $page) {
            $all = [];
            $after = null;
            do {
                $answer = $page($after);
                $this->assertSame(5, $answer['count']);
                $all = [...$all, ...$answer['sessions']];
                $after = $answer['next'] ?? null;
            } while ($after !== null);
            $this->assertSame($ids, $all);
        }
        $this->assertSame(
            ['count' => 2, 'channels' => [['channel' => $this->room, 'count' => 5]], 'next' => $this->room],
            $this->router->channels(limit: 1),
        );
        $hall = ['channel' => "$this->room, the hall", 'count' => 4];
        $this->assertSame(['count' => 2, 'channels' => [$hall]], $this->router->channels($this->room));
        $this->assertSame(['count' => 2, 'channels' => []], $this->router->channels(limit: 0));
        $node = $this->router->node();
        $this->assertSame([5, 2, 1, false], [$node['sessions'], $node['channels'], $node['uids'], $node['draining']]);
        $nodes = $this->router->nodes();
        $this->assertSame(['nodes'], array_keys($nodes));
        $this->assertSame([[$node['node'], 5, 2]], array_map(
            static fn (array $one): array => [$one['node'], $one['sessions'], $one['channels']],
            $nodes['nodes'],
        ));
    }

    /** @return array<string, array{callable(RouterInterface, string): mixed}> */
    public function whatCannotBe(): array
    {
        $self = static fn (string $id): Target => Target::session($id);
        return [
            'an id of another length' => [static fn ($r) => $r->send(Target::session('short'), 'x')],
            'an id of other characters' => [static fn ($r) => $r->send(Target::session('AAAAAAAAAAAAAAA!'), 'x')],
            'no name of a channel' => [static fn ($r, $id) => $r->join($self($id), '')],
            'too long a name' => [static fn ($r, $id) => $r->join($self($id), str_repeat('x', 256))],
            'a control character' => [static fn ($r, $id) => $r->bind($self($id), "a\nb")],
            'a target without a name' => [static fn ($r) => $r->publish('', 'x')],
            'all left out' => [static fn ($r) => $r->send(Target::all()->except(Target::all()), 'x')],
            'a key of an attribute' => [static fn ($r, $id) => $r->set($self($id), 'no-key', 'x')],
            'an empty key of a message' => [static fn ($r, $id) => $r->send($self($id), 'x', null, '')],
            'a code that may not be sent' => [static fn ($r, $id) => $r->close($self($id), 1006)],
            'a code of 17 bits' => [static fn ($r, $id) => $r->close($self($id), 66536)],
            'a limit below 0' => [static fn ($r) => $r->sessions(null, -1)],
            'a limit above 1000' => [static fn ($r) => $r->sessions(null, 1001)],
            'a reason that is no text' => [static fn ($r, $id) => $r->close($self($id), 4000, "\xFF")],
            'a reason above 64 KiB' => [static fn ($r, $id) => $r->close($self($id), 4000, str_repeat('x', 70000))],
            'fields above 64 KiB' => [static fn ($r) => $r->send(
                Target::all()->except(...array_map(static fn (int $n) => Target::uid(str_repeat('x', 250) . $n), range(1, 300))),
                'x',
            )],
            'a message above 16 MiB' => [static fn ($r, $id) => $r->send($self($id), str_repeat('x', (16 << 20) + 1))],
        ];
    }

    /** @dataProvider whatCannotBe */
    public function testWhatCannotBeIsRefused(callable $use): void
    {
        $a = $this->connect();
        try {
            $use($this->router, $a);
            $this->fail('it was not refused');
        } catch (Exception $error) {
            $this->assertFalse($error->mayBeDone(), $error->getMessage());
        }
        $this->assertSame(1, $this->router->send(Target::session($a), 'still there')->reached);
        $this->assertSame(['still there'], $this->frames($a, 1));
    }

    public function testWhatASessionMayNotHaveIsCountedAsRefused(): void
    {
        $a = $this->connect();
        $self = Target::session($a);
        $batch = $this->router->batch();
        foreach (range(1, 101) as $n) {
            $batch->join($self, "$this->room $n");
        }
        $receipts = $batch->run();
        $this->assertEquals(new Receipt(refused: 1), array_pop($receipts));
        $this->assertEquals(array_fill(0, 100, new Receipt(reached: 1)), $receipts);
        $this->assertSame(1, $this->router->join($self, "$this->room 1")->reached, 'it is there already');
        $this->assertSame(1, $this->router->set($self, 'key', str_repeat('x', 4093))->reached);
        foreach ([['key', 4094], ['k', 3]] as [$key, $bytes]) {
            $this->assertSame(1, $this->router->set($self, $key, str_repeat('x', $bytes))->refused);
        }
        $this->assertSame(1, $this->router->set($self, 'key', 'x')->reached);
    }

    public function testQuietRouterAnswersAsTheOther(): void
    {
        $a = $this->connect();
        $self = Target::session($a);
        $quiet = $this->router->quietly();
        $receipts = [
            $quiet->join($self, $this->room), $quiet->bind($self, $this->room), $quiet->set($self, 'k', 'v'),
            $quiet->compareAndSet($self, 'k', 'v', 'w'), $quiet->publish($this->room, 'one'), $quiet->exists($self),
            $quiet->send($self, 'two'), $quiet->delete($self, 'x'),
        ];
        foreach ($receipts as $receipt) {
            $this->assertEquals(new Receipt(reached: 1), $receipt);
        }
        $this->assertSame('w', $quiet->attribute($a, 'k'));
        $this->assertSame($a, $quiet->session($a)['session']);
        $this->assertSame([$a], $quiet->channel($this->room)['sessions']);
        $this->assertSame([$a], $quiet->uid($this->room)['sessions']);
        $this->assertSame(1, $quiet->channels()['count']);
        $this->assertSame([$a], $quiet->sessions()['sessions']);
        $this->assertSame(1, $quiet->node()['sessions']);
        $this->assertSame(1, $quiet->nodes()['nodes'][0]['sessions']);
        $this->assertSame(1, $quiet->try(static fn (RouterInterface $router): int => $router->node()['sessions']));
        $answers = $quiet->batch(fn ($batch) => $batch->unbind($self)->leave($self, $this->room)->send($self, '3'));
        $this->assertCount(3, $answers);
        $this->assertSame(1, $quiet->close($self)->reached);
        $this->assertSame(['one', 'two', '3', null], $this->frames($a, 4));
    }
}

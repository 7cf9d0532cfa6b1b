<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use PHPUnit\Framework\TestCase;

require_once dirname(__DIR__) . '/api.php';

/** api.php: odd values that old scripts pass, and the errors for them. */
final class ApiValuesTest extends TestCase
{
    use ErrorLog;
    use OnARunningNode;

    /** @after */
    public function everybodyLeaves(): void
    {
        $this->leave();
    }

    private static function client(): \RouterClient
    {
        return new \RouterClient(Environment::get('LONGWIRE_ROUTER'), 0, null, ['timeout' => 20.0]);
    }

    /** @return list<string> of sessions that are not there */
    private static function ids(int $count): array
    {
        return array_map(static fn (int $n): string => sprintf('A%015d', $n), range(1, $count));
    }

    public function testAsManySessionsAsThereAre(): void
    {
        $client = self::client();
        [$first, $last] = [$this->connect(), $this->connect()];
        // One more than once, far from where it was.
        $ids = [$first, ...self::ids(5000), $last, $first];
        foreach (
            [
                fn (): array => $client->sendMsg($ids, 'hi'),
                fn (): array => $client->send($ids, 'hi'),
                fn (): array => $client->addChannel('crowd', $ids),
                fn (): array => $client->join($ids, 'crowd'),
                fn (): array => $client->delChannel('crowd', $ids),
                fn (): array => $client->bindUid($ids, '42'),
                fn (): array => $client->setAttr($ids, 'rank', '3'),
            ] as $call
        ) {
            $receipt = $call();
            $this->assertSame([2, 5000, 0], [$receipt['reached'], $receipt['gone'], $receipt['refused']]);
        }
        $this->assertSame(2, $client->exists($ids));
        $this->assertSame(['hi', 'hi'], $this->frames($last, 2));
        $this->assertSame([], $this->logLines());

        $client->begin();
        $this->assertTrue($client->sendMsg($ids, 'in a batch'));
        $this->assertTrue($client->sendMsg($last, 'behind it'));
        $this->assertTrue($client->sendMsg([], 'nobody'));
        $receipts = $client->commit();
        $this->assertSame([[2, 5000], [1, 0], [0, 0]], array_map(
            static fn (array $receipt): array => [$receipt['reached'], $receipt['gone']],
            $receipts,
        ));
        $this->assertSame(['in a batch', 'behind it'], $this->frames($last, 2));
        $this->assertSame(2, $client->kickUser($ids)['reached']);
    }

    /** @return array<string, array{mixed, string}> what is handed over as a session, and what is said of it */
    public function noSessions(): array
    {
        return [
            'null' => [[null], 'a session id has 16 characters: '],
            'null among others' => [['A000000000000001', null], 'a session id has 16 characters: '],
            'false' => [[false], 'a session id has 16 characters: '],
            'a number' => [[7], 'a session id has 16 characters: 7'],
            'a list' => [[['A000000000000001']], 'a session id has 16 characters: '],
            'a short one' => ['abc', 'a session id has 16 characters: abc'],
        ];
    }

    /** @dataProvider noSessions */
    public function testNoSessionIsSaidAndNothingIsPrinted(mixed $sid, string $problem): void
    {
        // A deprecation would be an exception here.
        $client = self::client();
        $this->assertFalse($client->sendMsg($sid, 'hi'));
        $this->assertSame($problem, $client->lastError());
        $this->assertFalse($client->exists($sid));
        $this->assertFalse($client->session($sid));
        $this->assertCount(3, $this->logLines());
    }

    public function testNoTargetIsSaidAndNothingIsPrinted(): void
    {
        $client = self::client();
        $this->assertFalse($client->send(null, 'hi'));
        $this->assertFalse($client->send('', 'hi'));
        $this->assertSame(0, $client->sendMsg(null, null)['reached'], 'null is an empty list');
        $this->assertSame(0, $client->publish('nobody is here', null)['reached']);
    }

    public function testLastErrorIsThatOfTheLastCall(): void
    {
        $client = self::client();
        $fails = static fn () => $client->sendMsg('no session', 'x');
        $session = $this->connect();
        foreach (
            [
                static fn () => $client->sendMsg($session, 'x'),
                static fn () => $client->exists($session),
                static fn () => $client->session($session),
                static fn () => $client->session('A000000000000001'),
                static fn () => $client->info(),
                static fn () => $client->commit(),
            ] as $works
        ) {
            $this->assertFalse($fails());
            $this->assertStringContainsString('16 characters', $client->lastError());
            $works();
            $this->assertSame('', $client->lastError());
        }
        $client->begin();
        $this->assertFalse($fails());
        $client->sendMsg($session, 'y');
        $this->assertSame('', $client->lastError());
        $receipts = $client->commit();
        $this->assertSame([false, 1], [$receipts[0], $receipts[1]['reached']], 'each call has its place');
        $this->assertStringContainsString('16 characters', $client->lastError());
    }
}

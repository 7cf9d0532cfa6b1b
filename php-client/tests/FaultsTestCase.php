<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use PHPUnit\Framework\TestCase;

/** Checks the results of each client, and their timing, when the router is down, slow, or breaks off. */
abstract class FaultsTestCase extends TestCase
{
    /** Timeout in seconds, both to connect and for the rest, for tests in which it must not be reached, even on a loaded machine. */
    protected const TIMEOUT = 20.0;
    /** Timeout in seconds for tests of the timeout. */
    protected const SHORT_TIMEOUT = 0.8;
    /** Seconds beyond the timeouts that a loaded machine may take. */
    private const SLACK = 5.0;

    /** The client's own log lines since the test began. */
    abstract protected function logLines(): array;

    /** A new client; its timeouts are TIMEOUT unless the option timeout is given. */
    abstract protected function client(string|array $addresses, array $options = []): object;

    /** The number of sessions reached, or a word: down, slow-greeting, slow, closed, no-router, refused. */
    abstract protected function publish(object $client, string $message): int|string;

    /** The result of node(), or such a word. */
    abstract protected function ask(object $client): array|string;

    /** Checks the result of publishing at an address: at once or after the timeouts, and with one line in the log. */
    private function checkFails(string $address, string $expected, string $message = 'hello'): void
    {
        $timeout = str_starts_with($expected, 'slow') ? self::SHORT_TIMEOUT : self::TIMEOUT;
        $client = $this->client($address, ['timeout' => $timeout]);
        $started = hrtime(true);
        $this->assertSame($expected, $this->publish($client, $message));
        $seconds = (hrtime(true) - $started) / 1e9;
        $this->assertLessThan(($timeout === self::TIMEOUT ? 0 : 2 * $timeout) + self::SLACK, $seconds);
        $this->assertLogged(1);
    }

    protected function assertLogged(int $count): void
    {
        $this->assertCount($count, $this->logLines(), implode("\n", $this->logLines()));
    }

    private static function closedPort(): string
    {
        $server = stream_socket_server('tcp://127.0.0.1:0');
        $address = 'tcp://' . stream_socket_get_name($server, false);
        fclose($server);
        return $address;
    }

    public function testRouterThatIsDownIsSaidAtOnce(): void
    {
        $this->checkFails(self::closedPort(), 'down');
    }

    public function testSocketThatIsNotThereIsSaidAtOnce(): void
    {
        $this->checkFails('unix:' . sys_get_temp_dir() . '/no such router.sock', 'down');
    }

    public function testRouterThatAcceptsAndNeverGreetsCostsTheTimeout(): void
    {
        $peer = Peer::router('silent');
        $this->checkFails($peer->address, 'slow-greeting');
    }

    public function testRouterThatGreetsAndNeverAnswersCostsTheTimeout(): void
    {
        $peer = Peer::router('mute');
        $this->checkFails($peer->address, 'slow');
        $this->assertCount(1, $peer->events('command', 1));
    }

    public function testRouterThatAnswersByteByByteDoesNotStretchTheTimeout(): void
    {
        // 50 bytes of a receipt, each 0.2 s after the one before: no single read is late.
        $peer = Peer::router('trickles', 200_000);
        $this->checkFails($peer->address, 'slow');
    }

    public function testRouterThatIsKilledBetweenWriteAndReadIsAnEnd(): void
    {
        $peer = Peer::router('killed');
        $this->checkFails($peer->address, 'closed');
        $this->assertCount(1, $peer->events('command', 1), 'it had the command when it died, and only once');
    }

    public function testAnswerThatEndsInMidFrameIsAnEnd(): void
    {
        // Break off in the header, after it, in a field, and one byte before the end.
        foreach ([1, 7, 8, 20, 49] as $bytes) {
            $this->forgetLog();
            $peer = Peer::router('cut', $bytes);
            $this->checkFails($peer->address, 'closed');
        }
    }

    public function testAnswerThatStopsInMidFrameCostsTheTimeout(): void
    {
        foreach ([7, 49] as $bytes) {
            $this->forgetLog();
            $peer = Peer::router('stalls', $bytes);
            $this->checkFails($peer->address, 'slow');
        }
    }

    abstract protected function forgetLog(): void;

    public function testSomethingElseThanARouterIsSaidAtOnce(): void
    {
        foreach (['garbage', 'impostor', 'confused', 'huge'] as $mode) {
            $this->forgetLog();
            $peer = Peer::router($mode);
            $this->checkFails($peer->address, 'no-router');
        }
    }

    public function testServerThatDoesNotKnowTheSecretGetsNoCommand(): void
    {
        // It says something wrong, it asks for a proof and gives none, it says that it wants none, it says something that has no meaning.
        foreach (['impostor', 'unproved', 'good', 'odd-auth'] as $mode) {
            $peer = Peer::router($mode);
            $client = $this->client($peer->address, ['secret' => 'a secret of some length']);
            $this->assertSame('no-router', $this->publish($client, 'secret plans'), $mode);
            $this->assertCount(1, $peer->events('ended', 1));
            $this->assertSame([], $peer->events('command'), $mode);
        }
    }

    public function testNextAddressTakesOver(): void
    {
        $peer = Peer::router('good');
        $silent = Peer::router('silent');
        $addresses = [self::closedPort(), $silent->address, $peer->address];
        $client = $this->client($addresses, ['timeout' => self::SHORT_TIMEOUT]);
        $this->assertSame(1, $this->publish($client, 'hello'));
        $this->assertCount(1, $peer->events('command', 1));
    }

    public function testClientWorksAgainWhenTheRouterDoes(): void
    {
        $peer = Peer::router('good');
        $address = $peer->address;
        $client = $this->client($address);
        $this->assertSame(1, $this->publish($client, 'one'));
        unset($peer);
        $this->assertSame('down', $this->publish($client, 'two'));
        $peer = Peer::router('good', 0, $address);
        $this->assertSame(1, $this->publish($client, 'three'));
    }

    public function testAnotherAttemptDoesNotStretchTheTimeouts(): void
    {
        // The first connection is lost when the time is almost over; the second one greets late, and is silent then.
        $timeout = 2.0;
        $peer = Peer::router('late', (int) ($timeout * 900_000));
        $client = $this->client($peer->address, ['timeout' => $timeout]);
        $this->assertSame(['answered' => 1], $this->ask($client));
        $started = hrtime(true);
        $this->assertContains($this->ask($client), ['slow', 'slow-greeting']);
        $this->assertLessThan(2 * $timeout + 1.0, (hrtime(true) - $started) / 1e9);
        $this->assertCount(3, $peer->events('command', 3), 'it was asked again');
    }

    public function testDescriptorAbove1024IsWaitedForLikeAnyOther(): void
    {
        if (!function_exists('posix_getrlimit') || posix_getrlimit()['soft openfiles'] < 1300) {
            $this->markTestSkipped('no process may have so many files here');
        }
        $peer = Peer::router('good');
        $mute = Peer::router('mute');
        $files = array_map(static fn () => fopen('/dev/null', 'r'), range(1, 1100));
        $client = $this->client($peer->address);
        foreach (['one', 'two', str_repeat('x', 5_000_000)] as $message) {
            $this->assertSame(1, $this->publish($client, $message));
        }
        $this->assertSame(['answered' => 4], $this->ask($client));
        $this->assertSame([1, 1, 1, 1], array_column($peer->events('command', 4), 'on'), 'the connection was kept');
        $before = getrusage();
        $this->assertSame('slow', $this->publish($this->client($mute->address, ['timeout' => self::SHORT_TIMEOUT]), 'x'));
        $used = getrusage();
        $cpu = static fn (array $of): float => $of['ru_utime.tv_sec'] + $of['ru_stime.tv_sec']
            + ($of['ru_utime.tv_usec'] + $of['ru_stime.tv_usec']) / 1e6;
        $this->assertLessThan(self::SHORT_TIMEOUT / 2, $cpu($used) - $cpu($before), 'it waits, and does not spin');
        array_map(fclose(...), $files);
    }

    public function testMegabytesGoWholeToAPeerThatReadsSlowly(): void
    {
        $socket = sys_get_temp_dir() . "/longwire-slow-" . getmypid() . ".sock";
        $message = random_bytes(6_000_000);
        foreach (["unix://$socket", 'tcp://127.0.0.1:0'] as $address) {
            $peer = Peer::router('slow', 8192, $address);
            $client = $this->client($peer->address);
            $this->assertSame(1, $this->publish($client, $message));
            $this->assertSame(1, $this->publish($client, 'and the next frame is one'));
            [$large, $small] = $peer->events('command', 2);
            $this->assertSame([6_000_000, hash('sha256', $message)], [$large['bytes'], $large['sha256']]);
            $this->assertSame(25, $small['bytes']);
            @unlink($socket);
        }
    }

    public function testConnectionThatTheRouterClosedMeanwhileIsReplaced(): void
    {
        $peer = Peer::router('one-each');
        $client = $this->client($peer->address);
        foreach (['one', 'two', 'three'] as $i => $message) {
            $this->assertSame(1, $this->publish($client, $message));
            // A command that is written before the end comes may be done, and is not sent again.
            $this->assertCount($i + 1, $peer->events('closed', $i + 1));
        }
        $this->assertSame([1, 2, 3], array_column($peer->events('command', 3), 'on'));
        $this->assertLogged(0);
    }

    public function testCommandThatMayBeDoneIsNotSentAgainAndAQueryIs(): void
    {
        $peer = Peer::router('drops-second');
        $client = $this->client($peer->address);
        $this->assertSame(1, $this->publish($client, 'one'));
        $this->assertSame('closed', $this->publish($client, 'two'));
        $this->assertCount(2, $peer->events('command', 2));

        $peer = Peer::router('drops-second');
        $client = $this->client($peer->address);
        $this->assertSame(['answered' => 1], $this->ask($client));
        $this->assertSame(['answered' => 1], $this->ask($client));
        $this->assertSame([1, 1, 2], array_column($peer->events('command', 3), 'on'));
    }

    public function testCommandThatCannotBeDoneIsSentAgain(): void
    {
        // More than a socket's buffers take, so the router closes before the whole command can have left.
        $message = str_repeat('x', 20_000_000);
        $peer = Peer::router('breaks-off', 1000);
        $client = $this->client($peer->address);
        $this->assertSame(1, $this->publish($client, 'one'));
        $this->assertSame(1, $this->publish($client, $message));
        $commands = $peer->events('command', 2);
        $this->assertSame([1, 2], array_column($commands, 'on'));
        $this->assertSame([3, 20_000_000], array_column($commands, 'bytes'));
    }
}

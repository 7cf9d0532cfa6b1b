<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use Longwire\Client\Router;
use PHPUnit\Framework\TestCase;

require_once dirname(__DIR__) . '/api.php';

/** Connections that outlive the page, of both clients. */
final class PersistentTest extends TestCase
{
    /** @return array<string, array{string}> */
    public function clients(): array
    {
        return ['the package' => ['Router'], 'api.php' => ['RouterClient']];
    }

    /** @return callable(): int publishes over a persistent connection: how many were reached */
    private static function publisher(string $client, string $address): callable
    {
        if ($client === 'Router') {
            $router = new Router($address, ioTimeout: 20.0, persistent: true);
            return static fn (): int => $router->publish('room', 'x')->reached;
        }
        $router = new \RouterClient($address, 0, null, ['timeout' => 20.0, 'persistent' => true, 'throw' => true]);
        return static fn (): int => $router->publish('room', 'x')['reached'];
    }

    /** @dataProvider clients */
    public function testConnectionOutlivesItsClient(string $client): void
    {
        foreach (['tcp://127.0.0.1:0', 'unix://' . sys_get_temp_dir() . "/longwire-$client.sock"] as $address) {
            $peer = Peer::router('good', 0, $address);
            for ($i = 0; $i < 3; $i++) {
                $this->assertSame(1, self::publisher($client, $peer->address)());
            }
            $this->assertSame([1, 1, 1], array_column($peer->events('command', 3), 'on'));
            @unlink(substr($address, 7));
        }
    }

    /** @dataProvider clients */
    public function testConnectionThatTheRouterClosedMeanwhileIsReplaced(string $client): void
    {
        $peer = Peer::router('one-each');
        foreach ([1, 2, 3] as $i) {
            $this->assertSame(1, self::publisher($client, $peer->address)());
            $this->assertCount($i, $peer->events('closed', $i));
        }
        $this->assertSame([1, 2, 3], array_column($peer->events('command', 3), 'on'));
    }

    /** @dataProvider clients */
    public function testTwoClientsOfAPageShareItAndOneMayEndIt(string $client): void
    {
        $peer = Peer::router('drops-second');
        [$one, $two] = [self::publisher($client, $peer->address), self::publisher($client, $peer->address)];
        $this->assertSame(1, $one());
        try {
            $two();
            $this->fail('the answer never comes');
        } catch (\RuntimeException $error) {
            $this->assertStringContainsString('closed the connection', $error->getMessage());
        }
        $this->assertSame(1, $one(), 'the other has closed the stream of this one');
        $this->assertSame(1, $two());
        $this->assertSame([1, 1, 2, 2], array_column($peer->events('command', 4), 'on'));
    }

    /** @dataProvider clients */
    public function testForkDoesNotWriteIntoItsParentsConnection(string $client): void
    {
        $peer = Peer::router('good');
        $publish = self::publisher($client, $peer->address);
        $this->assertSame(1, $publish());
        $child = pcntl_fork();
        if ($child === 0) {
            try {
                $reached = $publish();
            } finally {
                // Exit without phpunit's shutdown, which belongs to the parent.
                posix_kill((int) getmypid(), ($reached ?? 0) === 1 ? SIGTERM : SIGKILL);
            }
        }
        pcntl_waitpid($child, $status);
        $this->assertSame(SIGTERM, pcntl_wtermsig($status), 'the child was answered');
        $this->assertSame(1, $publish());
        $this->assertSame([1, 2, 1], array_column($peer->events('command', 3), 'on'));
    }

    /** @dataProvider clients */
    public function testNewClientInAForkHasAConnectionOfItsOwn(string $client): void
    {
        foreach (['tcp://127.0.0.1:0', 'unix://' . sys_get_temp_dir() . "/longwire-fork-$client.sock"] as $address) {
            $peer = Peer::router('good', 0, $address);
            // In a separate process, whose children may end in any way.
            $code = 'require $argv[1]; require $argv[2]; mt_srand(1);
                $publish = static function () use ($argv): int {
                    $client = $argv[3] === "Router"
                        ? new Longwire\\Client\\Router($argv[4], ioTimeout: 20.0, persistent: true)
                        : new RouterClient($argv[4], 0, null, ["timeout" => 20.0, "persistent" => true, "throw" => true]);
                    return is_array($receipt = $client->publish("room", "x")) ? $receipt["reached"] : $receipt->reached;
                };
                $reached = $publish();
                for ($i = 0; $i < 2; $i++) {
                    if (pcntl_fork() === 0) {
                        exit($publish() + $publish());
                    }
                    pcntl_wait($status);
                    $reached += pcntl_wexitstatus($status);
                }
                echo $reached + $publish();';
            $files = [__DIR__ . '/bootstrap.php', dirname(__DIR__) . '/api.php', $client, $peer->address];
            $process = proc_open([PHP_BINARY, '-r', $code, '--', ...$files], [1 => ['pipe', 'w']], $pipes);
            $this->assertSame('6', stream_get_contents($pipes[1]));
            proc_close($process);
            $commands = $peer->events('command', 6);
            $this->assertSame([1, 2, 2, 3, 3, 1], array_column($commands, 'on'));
            @unlink(substr($address, 7));
        }
    }

    /** @dataProvider clients */
    public function testStreamOfAnotherSecretIsNotTaken(string $client): void
    {
        foreach (['tcp://127.0.0.1:0', 'unix://' . sys_get_temp_dir() . "/longwire-secret-$client.sock"] as $address) {
            $peer = Peer::router('guarded', 0, $address);
            foreach (['a long random text', 'another random text', 'a long random text'] as $secret) {
                $router = $client === 'Router'
                    ? new Router($peer->address, ioTimeout: 20.0, secret: $secret, persistent: true)
                    : new \RouterClient($peer->address, 0, $secret, ['timeout' => 20.0, 'persistent' => true]);
                $router->publish('room', 'x');
            }
            $this->assertSame([1, 2, 1], array_column($peer->events('command', 3), 'on'));
            @unlink(substr($address, 7));
        }
    }

    /** @dataProvider clients */
    public function testConnectionOfAPageThatDiedIsNotBuiltUpon(string $client): void
    {
        $peer = Peer::router('mute-first');
        $server = new WebServer();
        $dying = $server->get('page.php', ['client' => $client, 'at' => $peer->address]);
        $this->assertCount(1, $peer->events('command', 1), 'it waits for its answer now');
        posix_kill($server->pid(), SIGALRM);
        $this->assertSame('died', $dying());
        foreach ([1, 2] as $_) {
            $this->assertSame('1', $server->get('page.php', ['client' => $client, 'at' => $peer->address])());
        }
        $this->assertSame([1, 2, 2], array_column($peer->events('command', 3), 'on'));
    }

    public function testWorkersOfPhpFpmKeepOneConnectionEach(): void
    {
        $peer = Peer::router('good');
        $client = new Client();
        $pids = [];
        for ($i = 0; $i < 20; $i++) {
            $answer = $client->ask(['publish' => 'room', 'message' => "$i", 'at' => $peer->address]);
            $this->assertSame(1, $answer['reached']);
            $pids[$answer['pid']] = true;
        }
        $client->close();
        $this->assertCount(20, $peer->events('command', 20));
        $this->assertCount(count($pids), $peer->events('accepted'));
        $this->assertLessThan(20, count($pids));
    }
}

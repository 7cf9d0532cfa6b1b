<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use Longwire\Client\Internal\Address;
use Longwire\Client\InvalidArgument;
use Longwire\Client\Receipt;
use Longwire\Client\Router;
use Longwire\Client\Target;
use PHPUnit\Framework\TestCase;
use Psr\Log\AbstractLogger;
use Psr\Log\LogLevel;

/** Addresses, targets, receipts and logs. */
final class ValuesTest extends TestCase
{
    public function testAddressesAreReadAsLongwireWritesThem(): void
    {
        $addresses = [
            '127.0.0.1:9010' => 'tcp://127.0.0.1:9010',
            'tcp://10.0.0.5:1' => 'tcp://10.0.0.5:1',
            'router.example' => 'tcp://router.example:9010',
            '[::1]:9011' => 'tcp://[::1]:9011',
            '[::1]' => 'tcp://[::1]:9010',
            'unix:/run/longwire/router.sock' => 'unix:///run/longwire/router.sock',
            'unix:///run/longwire/router.sock' => 'unix:///run/longwire/router.sock',
        ];
        foreach ($addresses as $address => $url) {
            $this->assertSame($url, Address::url($address));
        }
        foreach (['', 'unix:', 'tcp://', 'http://example.org/', '::1', 'a b', 'host:port', "a:1\n"] as $address) {
            try {
                Address::url($address);
                $this->fail("$address is no address");
            } catch (InvalidArgument $error) {
                $this->assertFalse($error->mayBeDone());
            }
        }
    }

    public function testRouterWantsAnAddress(): void
    {
        $cases = [
            static fn () => new Router([]),
            static fn () => new Router('nowhere:'),
        ];
        foreach ($cases as $make) {
            try {
                $make();
                $this->fail('it was made');
            } catch (InvalidArgument $error) {
                $this->assertNotSame('', $error->getMessage());
            }
        }
    }

    public function testTargetsAreReadAsInHeaders(): void
    {
        $this->assertEquals(Target::session('a:b'), Target::parse('session:a:b'));
        $this->assertEquals(Target::uid('42'), Target::parse('uid:42'));
        $this->assertEquals(Target::channel(''), Target::parse('channel:'));
        $this->assertEquals(Target::all(), Target::parse('all'));
        foreach (['', 'all:', 'everybody', 'session', 'user:42'] as $text) {
            try {
                Target::parse($text);
                $this->fail("$text is no target");
            } catch (InvalidArgument $error) {
                $this->assertStringStartsWith("$text is none of", $error->getMessage());
            }
        }
        $one = Target::session('a', 'b', 'a');
        $this->assertSame(['a', 'b'], $one->names);
        $less = $one->except(Target::uid('1'))->except(Target::uid('2'));
        $this->assertSame([[], 2], [$one->except, count($less->except)]);
    }

    public function testReceiptsAreAddedUp(): void
    {
        $one = new Receipt(1, 2, 3, 4, 5, 6, 7, 8);
        $this->assertSame([3, 8], [$one->delivered(), $one->dropped()]);
        $this->assertEquals(new Receipt(2, 4, 6, 8, 10, 12, 14, 16), $one->plus($one));
    }

    public function testWarningsGoToWhatIsGiven(): void
    {
        $lines = [];
        $logger = new class ($lines) extends AbstractLogger {
            /** @var list<\Throwable|null> */
            public array $exceptions = [];

            public function __construct(private array &$lines)
            {
            }

            /** Its form is that of every version of psr/log. */
            public function log($level, $message, array $context = []): void
            {
                TestCase::assertSame(LogLevel::WARNING, $level);
                $this->lines[] = (string) $message;
                $this->exceptions[] = $context['exception'] ?? null;
            }
        };
        $peer = Peer::router('good');
        $nowhere = 'unix:' . sys_get_temp_dir() . '/no such router.sock';
        $append = static function (string $line) use (&$lines): void {
            $lines[] = $line;
        };
        foreach ([$logger, $append] as $log) {
            $lines = [];
            $router = new Router([$nowhere, $peer->address], log: $log);
            $this->assertSame(1, $router->quietly()->publish('room', 'x')->reached);
            $this->assertNull($router->quietly()->publish('', 'x'), 'nothing throws into the page');
            $this->assertCount(2, $lines);
            $this->assertStringContainsString("$peer->address is used instead", $lines[0]);
            $this->assertStringContainsString('a channel has 1 to 255 bytes', $lines[1]);
        }
        $this->assertNull($logger->exceptions[0]);
        $this->assertInstanceOf(InvalidArgument::class, $logger->exceptions[1]);
        $this->expectException(\TypeError::class);
        new Router(log: new \stdClass());
    }

    public function testUnixSocketWhoseBacklogIsFullIsTriedAgain(): void
    {
        $path = sys_get_temp_dir() . '/longwire-backlog-' . getmypid() . '.sock';
        $context = stream_context_create(['socket' => ['backlog' => 1]]);
        $flags = STREAM_SERVER_BIND | STREAM_SERVER_LISTEN;
        $server = stream_socket_server("unix://$path", $code, $message, $flags, $context);
        $waiting = [];
        while (($socket = @stream_socket_client("unix://$path", $code, $message, 1.0)) !== false) {
            $waiting[] = $socket;
        }
        $started = hrtime(true);
        $this->assertNull((new Router("unix:$path", connectTimeout: 0.2, log: 'strlen'))->quietly()->node());
        $this->assertGreaterThan(0.19, (hrtime(true) - $started) / 1e9, 'it has tried for all of the timeout');
        unlink($path);
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use Longwire\Client\ConnectFailed;
use Longwire\Client\Events\RequestDone;
use Longwire\Client\Events\RequestFailed;
use Longwire\Client\Events\RequestRefused;
use Longwire\Client\Events\SessionsGone;
use Longwire\Client\InvalidArgument;
use Longwire\Client\Kind;
use Longwire\Client\ProtocolError;
use Longwire\Client\Receipt;
use Longwire\Client\Request;
use Longwire\Client\Router;
use Longwire\Client\Target;
use Longwire\Client\Testing\FakeRouter;
use Longwire\Client\TimedOut;
use Longwire\Client\Verb;
use PHPUnit\Framework\TestCase;

/** The events that a dispatcher gets. */
final class ReportTest extends TestCase
{
    private const GONE = 'AAAAAAAAAAAAAAAA';

    /** @return array<string, array{\Closure(Dispatcher, self): array{Router|FakeRouter, string}}> a router and the id of a session */
    public function routers(): array
    {
        return [
            'in memory' => [static function (Dispatcher $events): array {
                $fake = new FakeRouter('strlen', $events);
                return [$fake, $fake->connect()->id];
            }],
            // The test that runs is another object than the one that PHPUnit asks for its routers.
            'running' => [static function (Dispatcher $events, self $test): array {
                $test->client = new Client();
                $router = new Router(Environment::get('LONGWIRE_ROUTER'), ioTimeout: 20.0, log: 'strlen', events: $events);
                return [$router, $test->client->id];
            }],
        ];
    }

    private ?Client $client = null;

    protected function tearDown(): void
    {
        $this->client?->close();
    }

    /**
     * @dataProvider routers
     *
     * @param \Closure(Dispatcher, self): array{Router|FakeRouter, string} $make
     */
    public function testEachAnswerIsToldInItsOrder(\Closure $make): void
    {
        $events = new Dispatcher();
        [$router, $session] = $make($events, $this);
        $router->exists(Target::session($session));
        $exists = Request::exists(Target::session($session));
        $this->assertEquals([new RequestDone($exists, new Receipt(reached: 1))], $events->events);

        $events->events = [];
        $router->batch()
            ->send(Target::session(self::GONE, $session), 'one')
            ->join(Target::session($session), '')
            ->send(Target::session(self::GONE), 'two')
            ->send(Target::session($session), "\xFF", Kind::Text)
            ->run();
        $kinds = array_map(static fn (object $event): string => $event::class, $events->events);
        $expected = [
            RequestDone::class, SessionsGone::class, RequestRefused::class, RequestDone::class, SessionsGone::class, RequestRefused::class,
        ];
        $this->assertSame($expected, $kinds);
        [$sent, $some, $nameless, , $all, $notText] = $events->events;
        $this->assertSame(['one', 1], [$sent->request->body, $sent->receipt->gone]);
        $this->assertSame([false, 1, [self::GONE, $session]], [$some->all(), $some->count, $some->sessions]);
        $this->assertSame([Verb::Join, 'bad_field'], [$nameless->request->verb, $nameless->refused->error]);
        $this->assertSame([true, 1, [self::GONE]], [$all->all(), $all->count, $all->sessions]);
        $this->assertSame('not_text', $notText->refused->error);
    }

    /**
     * @dataProvider routers
     *
     * @param \Closure(Dispatcher, self): array{Router|FakeRouter, string} $make
     */
    public function testQueriesAndWrongArgumentsAreNoEvents(\Closure $make): void
    {
        $events = new Dispatcher();
        [$router, $session] = $make($events, $this);
        $router->node();
        $router->attribute($session, 'key');
        $router->session(self::GONE);
        $this->assertNull($router->quietly()->publish('', 'x'));
        try {
            $router->channel('');
            $this->fail('a channel has a name');
        } catch (InvalidArgument) {
            $this->assertSame([], $events->events);
        }
    }

    public function testRouterThatIsDown(): void
    {
        $events = new Dispatcher();
        $router = new Router('unix:' . sys_get_temp_dir() . '/no such router.sock', log: 'strlen', events: $events);
        $router->quietly()->batch(static fn ($batch) => $batch->publish('a', 'x')->publish('b', 'y'));
        $router->quietly()->node();
        $requests = array_map(static fn (RequestFailed $event): Request => $event->request, $events->events);
        $this->assertSame([Verb::Send, Verb::Send, Verb::Node], array_column($requests, 'verb'));
        $this->assertSame(['x', 'y', ''], array_column($requests, 'body'));
        foreach ($events->events as $event) {
            $this->assertInstanceOf(ConnectFailed::class, $event->exception);
        }
    }

    public function testAnswerThatDoesNotCome(): void
    {
        $peer = Peer::router('mute');
        $events = new Dispatcher();
        $this->assertNull((new Router($peer->address, 20.0, 0.2, log: 'strlen', events: $events))->quietly()->publish('a', 'x'));
        $this->assertCount(1, $events->events);
        $this->assertInstanceOf(TimedOut::class, $events->events[0]->exception);
        $this->assertTrue($events->events[0]->exception->mayBeDone());
    }

    public function testAnswerThatCannotBeRead(): void
    {
        $peer = Peer::router('confused');
        $events = new Dispatcher();
        $this->assertNull((new Router($peer->address, log: 'strlen', events: $events))->quietly()->node());
        $this->assertCount(1, $events->events);
        $this->assertInstanceOf(ProtocolError::class, $events->events[0]->exception);
    }

    public function testExceptionOfAListenerReachesTheCaller(): void
    {
        $fake = new FakeRouter(events: new Dispatcher(static function (): void {
            throw new \DomainException('from a listener');
        }));
        $ada = $fake->connect();
        try {
            $fake->quietly()->send(Target::all(), 'x');
            $this->fail('the exception is lost');
        } catch (\DomainException) {
            $this->assertSame(['x'], $ada->bodies(), 'the command has been done');
        }
    }
}

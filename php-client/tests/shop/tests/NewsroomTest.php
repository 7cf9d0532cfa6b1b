<?php

declare(strict_types=1);

namespace Shop\Tests;

use Longwire\Client\Events\SessionsGone;
use Longwire\Client\Target;
use Longwire\Client\Testing\FakeRouter;
use PHPUnit\Framework\AssertionFailedError;
use PHPUnit\Framework\TestCase;
use Psr\EventDispatcher\EventDispatcherInterface;
use Shop\Newsroom;

/** A shop's own test, with the fake. */
final class NewsroomTest extends TestCase
{
    public function testReadersAndAuthorAreTold(): void
    {
        $fake = new FakeRouter();
        [$author, $reader] = [$fake->connect(), $fake->connect()];
        $fake->assertNothingSent();
        $fake->join(Target::session($reader->id), 'news');
        (new Newsroom($fake))->announce('Rain', $author->id);
        $fake->assertPublished('news', '{"title":"Rain"}');
        $fake->assertPublishedTimes('news', 1);
        $fake->assertSent($author->id, static fn (string $text): bool => str_contains($text, 'readers'));
        $fake->assertNotSent($reader->id);
        $reader->assertReceived();
        $this->assertSame(['1 readers'], $author->bodies());
    }

    public function testFailureSaysWhatWasSent(): void
    {
        $fake = new FakeRouter();
        (new Newsroom($fake))->announce('Rain', $fake->connect()->id);
        $this->expectException(AssertionFailedError::class);
        $this->expectExceptionMessage('to channel news: "{\"title\":\"Rain\"}"');
        $fake->assertPublished('news', 'Sun');
    }

    public function testAuthorWhoIsGoneIsAnEvent(): void
    {
        $events = new class implements EventDispatcherInterface {
            /** @var list<object> */
            public array $all = [];

            public function dispatch(object $event): object
            {
                return $this->all[] = $event;
            }
        };
        (new Newsroom(new FakeRouter(events: $events)))->announce('Rain', 'AAAAAAAAAAAAAAAA');
        $gone = array_values(array_filter($events->all, static fn (object $event): bool => $event instanceof SessionsGone));
        $this->assertSame([['AAAAAAAAAAAAAAAA']], array_column($gone, 'sessions'));
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use Longwire\Client\Event;
use Longwire\Client\EventKind;
use Longwire\Client\Frame;
use Longwire\Client\Kind;
use Longwire\Client\NoEvent;
use PHPUnit\Framework\TestCase;

final class EventTest extends TestCase
{
    private Client $client;

    protected function setUp(): void
    {
        $this->client = new Client();
    }

    protected function tearDown(): void
    {
        $this->client->close();
    }

    public function testHandlerGetsWhatLongwireSays(): void
    {
        $this->client->send(['reply' => [['uid', ['42']], ['set', ['Room', 'kitchen = 1']]]]);
        $event = $this->client->ask(['event' => true]);
        $this->assertSame('message', $event['kind']);
        $this->assertSame($this->client->id, $event['session']);
        $this->assertSame(['42', ['room' => 'kitchen = 1']], [$event['uid'], $event['attributes']]);
        $this->assertSame(Environment::get('LONGWIRE_ROUTER'), $event['router']);
        $this->assertSame('127.0.0.1', $event['remoteAddress']);
        $this->assertGreaterThan(0, $event['remotePort']);
        $this->assertSame("{$this->client->id}-{$event['seq']}", $event['id']);
        $this->assertSame('{"event":true}', $event['frame']['body']);
        $this->assertSame(Kind::Binary->value, $event['frame']['kind'], 'of a framing that does not say');
        $this->assertSame([null, null], [$event['closeCode'], $event['closeReason']]);
        $this->assertSame($event['seq'] + 1, $this->client->ask(['event' => true])['seq']);
    }

    public function testEventsAreReadFromParams(): void
    {
        $id = 'AAAN5xSVtmv6fR3q';
        $params = ['SESSIONID' => $id, 'LONGWIRE_EVENT' => 'connect', 'EVENT' => '1'];
        $connect = Event::fromParams($params, '');
        $this->assertSame([EventKind::Connect, $id, null], [$connect->kind, $connect->session, $connect->frame]);

        $params = ['HTTP_SESSIONID' => $id, 'LONGWIRE_EVENT' => 'message', 'LONGWIRE_FRAME_TYPE' => 'text'];
        $message = Event::fromParams($params, '[1]', 'HTTP_');
        $this->assertEquals(new Frame('[1]', Kind::Text), $message->frame);
        $this->assertSame([1], $message->frame->json());

        $close = Event::fromParams([
            'SESSIONID' => $id,
            'LONGWIRE_EVENT' => 'close',
            'LONGWIRE_SEQ' => '7',
            'LONGWIRE_CLOSE_CODE' => '1001',
            'LONGWIRE_CLOSE_REASON' => 'drain',
        ], '');
        $this->assertSame([7, 1001, 'drain'], [$close->seq, $close->closeCode, $close->closeReason]);
        $this->assertSame([], $close->attributes);
    }

    public function testScriptThatLongwireDidNotCallIsTold(): void
    {
        foreach ([[], ['SESSIONID' => 'x'], ['SESSIONID' => 'x', 'LONGWIRE_EVENT' => 'new']] as $params) {
            try {
                Event::fromParams($params, '');
                $this->fail('it is no event');
            } catch (NoEvent $error) {
                $this->assertFalse($error->mayBeDone());
            }
        }
        $this->expectException(NoEvent::class);
        Frame::fromGlobals();
    }
}

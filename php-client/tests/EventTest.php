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

    public function testEveryEventOfAnAppIsRead(): void
    {
        // Joined and left by the handler's own headers; the events come to the same handler, which sends them on.
        $watcher = new Client();
        $watcher->ask(['event' => true, 'reply' => [['uid', ['watcher']]]]);
        $this->client->send(['reply' => [['join', ['watched room']], ['text', ['in']]]]);
        $this->assertSame('in', $this->client->frame());
        $expected = [['occupied', null, null], ['join', $this->client->id, null]];
        foreach ($expected as [$kind, $session, $id]) {
            $event = json_decode((string) $watcher->frame(), true, 512, JSON_THROW_ON_ERROR);
            $this->assertSame(
                [$kind, $session, $id, 'watched room', null],
                [$event['kind'], $event['session'], $event['id'], $event['channel'], $event['frame']],
            );
            $this->assertSame(Environment::get('LONGWIRE_ROUTER'), $event['router']);
        }
        $this->client->close();
        foreach ([['leave', $this->client->id], ['vacated', null]] as [$kind, $session]) {
            $event = json_decode((string) $watcher->frame(), true, 512, JSON_THROW_ON_ERROR);
            $this->assertSame([$kind, $session, 'watched room'], [$event['kind'], $event['session'], $event['channel']]);
        }
        $watcher->close();
    }

    public function testPlainRequestIsReadToo(): void
    {
        $http = ['method' => 'POST', 'header' => 'Content-Type: text/plain', 'content' => 'a=1', 'timeout' => 20];
        $context = stream_context_create(['http' => $http]);
        $answer = file_get_contents('http://' . Environment::get('LONGWIRE_HTTP') . '/page', false, $context);
        $event = json_decode((string) $answer, true, 512, JSON_THROW_ON_ERROR);
        $this->assertSame(['request', null, null, null], [$event['kind'], $event['session'], $event['frame'], $event['id']]);
        $this->assertSame(['127.0.0.1', 'web'], [$event['remoteAddress'], $event['listener']]);
    }

    public function testEventsOfChannelsAreReadFromParams(): void
    {
        $id = 'AAAN5xSVtmv6fR3q';
        $join = Event::fromParams(
            ['LONGWIRE_EVENT' => 'join', 'LONGWIRE_CHANNEL' => 'hall', 'SESSIONID' => $id, 'LONGWIRE_UID' => '42'],
            '',
        );
        $this->assertSame(
            [EventKind::Join, $id, 'hall', '42', null],
            [$join->kind, $join->session, $join->channel, $join->uid, $join->id()],
        );
        $vacated = Event::fromParams(['LONGWIRE_EVENT' => 'vacated', 'LONGWIRE_CHANNEL' => 'hall'], '');
        $this->assertSame([EventKind::Vacated, null, 'hall'], [$vacated->kind, $vacated->session, $vacated->channel]);
        $this->assertTrue($vacated->kind->isOfChannel());
        $this->assertSame(EventKind::Request, Event::fromParams(['LONGWIRE_EVENT' => 'request'], 'a=1')->kind);
    }

    public function testScriptThatLongwireDidNotCallIsTold(): void
    {
        $join = ['LONGWIRE_EVENT' => 'join', 'LONGWIRE_CHANNEL' => 'hall'];
        foreach ([[], ['SESSIONID' => 'x'], ['SESSIONID' => 'x', 'LONGWIRE_EVENT' => 'new'], $join] as $params) {
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

<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use Longwire\Client\InvalidArgument;
use Longwire\Client\Kind;
use Longwire\Client\Reply;
use Longwire\Client\Router;
use Longwire\Client\Target;
use PHPUnit\Framework\TestCase;

/** Replies, as headers and as what Longwire makes of them. */
final class ReplyTest extends TestCase
{
    private Router $router;
    /** @var list<Client> */
    private array $clients = [];

    protected function setUp(): void
    {
        $this->router = new Router(Environment::get('LONGWIRE_ROUTER'), ioTimeout: 20.0);
    }

    protected function tearDown(): void
    {
        array_map(static fn (Client $client) => $client->close(), $this->clients);
        Patience::until('the sessions of this test end', fn (): bool => $this->router->node()['sessions'] === 0);
    }

    private function connect(): Client
    {
        return $this->clients[] = new Client();
    }

    public function testHeadersActOnTheSession(): void
    {
        $client = $this->connect();
        $client->send(['reply' => [
            ['join', ['one', 'two 2']],
            ['join', ['three']],
            ['leave', ['one']],
            ['uid', ['42']],
            ['set', ['Key', 'a=b, c; d']],
            ['set', ['empty', '']],
            ['set', ['gone', 'x']],
            ['delete', ['gone']],
            ['text', ['done']],
        ]]);
        $this->assertSame('done', $client->frame());
        $session = $this->router->session($client->id);
        $this->assertEqualsCanonicalizing(['two 2', 'three'], $session['channels']);
        $this->assertSame('42', $session['uid']);
        $this->assertEquals(['key' => 'a=b, c; d', 'empty' => ''], $session['attributes']);
        $client->send(['reply' => [['uid', [null]], ['body', ['']]]]);
        $this->assertSame('', $client->frame(), 'an empty body is an empty frame');
        $this->assertNull($this->router->session($client->id)['uid']);
    }

    public function testBodyGoesWhereItIsMeantTo(): void
    {
        [$a, $b, $c] = [$this->connect(), $this->connect(), $this->connect()];
        foreach ([$a, $b, $c] as $client) {
            $client->send(['reply' => [['join', ['room']], ['text', ['joined']]]]);
            $this->assertSame('joined', $client->frame());
        }
        $to = static fn (string $target, string ...$except): array => ['target' => $target, 'except' => $except];
        $say = static fn (array $to, string $text): array => ['reply' => [['to', $to], ['text', [$text]]]];
        $a->send($say([$to('channel:room'), true], '1'));
        $this->assertSame(['1', '1'], [$b->frame(), $c->frame()]);
        $a->send($say([$to('channel:room', "session:$b->id"), false, 'key'], '2'));
        $this->assertSame(['2', '2'], [$a->frame(), $c->frame()]);
        $a->send(['reply' => [['to', [$to("session:$b->id")]], ['toSelf', []], ['binary', ['3']]]]);
        $this->assertSame(['3', '3'], [$a->frame(), $b->frame()]);
        $a->send($say([$to('all', 'channel:room')], 'nobody'));
        $a->send($say([$to('all')], 'end'));
        $this->assertSame(['end', 'end', 'end'], [$a->frame(), $b->frame(), $c->frame()]);
    }

    public function testWhatIsPrintedBehindTheBodyIsNotSent(): void
    {
        $client = $this->connect();
        $client->send(['reply' => [['text', ['straße']]], 'noise' => "\nWarning: something"]);
        $this->assertSame('straße', $client->frame());
    }

    public function testSessionIsClosedBehindTheBody(): void
    {
        $client = $this->connect();
        $client->send(['reply' => [['close', [4001, 'enough']], ['text', ['bye']]]]);
        $this->assertSame(['bye', null], [$client->frame(), $client->frame()]);
    }

    public function testHeadersStandInTheirOrderAndTheLastBodyCounts(): void
    {
        $reply = (new Reply())->join('a', 'b')->text('no')->leave('a')->set('k', 'v')->binary('yes')->lines()->close();
        $this->assertSame([
            ['Longwire-Join', 'a'],
            ['Longwire-Join', 'b'],
            ['Longwire-Leave', 'a'],
            ['Longwire-Set', 'k=v'],
            ['Longwire-Type', 'binary'],
            ['Longwire-Stream', 'lines'],
            ['Longwire-Close', '1000'],
            ['Content-Length', '3'],
        ], $reply->headers());
        $this->assertSame(200, $reply->status());
        $this->assertSame([['Content-Length', '4']], (new Reply())->refuse(403, 'away')->headers());
        $this->assertSame(404, (new Reply())->refuse(404)->status());
        $json = (new Reply())->json(['a/ä']);
        $this->assertSame([['Longwire-Type', 'text'], ['Content-Length', '8']], $json->headers());
        $this->assertSame([['Longwire-Id', 'n 7']], (new Reply())->id('n 7')->headers());
        $this->assertSame([['Content-Length', '1']], (new Reply())->body('1', Kind::Text)->body('2')->headers());
        $many = Target::session('AAAN5xSVtmv6fR3q', 'AAAN5zXuM1vl2aFa')->except(Target::uid('7'));
        $this->assertSame([
            ['Longwire-To', 'session:AAAN5xSVtmv6fR3q; except=self; except=uid:7; key=k'],
            ['Longwire-To', 'session:AAAN5zXuM1vl2aFa; except=self; except=uid:7; key=k'],
        ], (new Reply())->to($many, true, 'k')->headers());
    }

    public function whatNoHeaderCanSay(): array
    {
        return [
            'a line break' => [static fn (Reply $reply) => $reply->set('k', "a\nLongwire-Close: 4000")],
            'a carriage return' => [static fn (Reply $reply) => $reply->close(4000, "a\rb")],
            'spaces that would be cut' => [static fn (Reply $reply) => $reply->set('k', ' a')],
            'a comma in a channel' => [static fn (Reply $reply) => $reply->join('a, b')],
            'an empty channel' => [static fn (Reply $reply) => $reply->leave('')],
            'a semicolon in a target' => [static fn (Reply $reply) => $reply->to(Target::channel('a; except=self'))],
            'a semicolon in a key' => [static fn (Reply $reply) => $reply->to(Target::all(), false, 'a;b')],
            'a line break in a user' => [static fn (Reply $reply) => $reply->uid("4\n2")],
            'a key that is none' => [static fn (Reply $reply) => $reply->delete('a b')],
            'a body for nobody' => [static fn (Reply $reply) => $reply->to(Target::session())],
            'a code that may not be sent' => [static fn (Reply $reply) => $reply->close(1005)],
            'a refusal that is none' => [static fn (Reply $reply) => $reply->refuse(200)],
        ];
    }

    /** @dataProvider whatNoHeaderCanSay */
    public function testWhatNoHeaderCanSayIsRefused(callable $use): void
    {
        $this->expectException(InvalidArgument::class);
        $use(new Reply());
    }
}

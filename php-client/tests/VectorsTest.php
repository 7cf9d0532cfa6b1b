<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use Longwire\Client\Internal\Frame;
use Longwire\Client\Internal\FrameReader;
use Longwire\Client\Internal\Tag;
use Longwire\Client\Internal\Wire;
use Longwire\Client\Kind;
use Longwire\Client\ProtocolError;
use Longwire\Client\Receipt;
use Longwire\Client\Refused;
use Longwire\Client\Request;
use Longwire\Client\Target;
use Longwire\Client\Verb;
use PHPUnit\Framework\TestCase;

/** The bytes that Longwire's own tests and these read: tests/vectors/router.json. */
final class VectorsTest extends TestCase
{
    /** @return array<string, array{array<string, mixed>}> */
    private static function section(string $name): array
    {
        $file = dirname(__DIR__, 2) . '/tests/vectors/router.json';
        $cases = [];
        foreach (json_decode(file_get_contents($file), true, 512, JSON_THROW_ON_ERROR)[$name] as $i => $case) {
            $cases[$case['name'] ?? "$name $i"] = [$case];
        }
        return $cases;
    }

    public function proofs(): array
    {
        return self::section('proofs');
    }

    public function requests(): array
    {
        return self::section('requests');
    }

    public function answers(): array
    {
        return self::section('answers');
    }

    /** @dataProvider proofs */
    public function testProofs(array $case): void
    {
        $nonces = [hex2bin($case['client_nonce']), hex2bin($case['server_nonce'])];
        $this->assertSame($case['client'], bin2hex(Wire::clientProof($case['secret'], ...$nonces)));
        $this->assertSame($case['server'], bin2hex(Wire::serverProof($case['secret'], ...$nonces)));
    }

    /** @dataProvider requests */
    public function testRequestsOfThePackage(array $case): void
    {
        $bytes = Wire::request(self::request($case), $case['request']);
        $this->assertSame(self::parted(self::bytes($case)), self::parted($bytes));
    }

    /** @dataProvider requests */
    public function testRequestsOfApiPhp(array $case): void
    {
        $request = self::request($case);
        $takesIdsOnly = in_array($request->verb, [Verb::Unbind, Verb::Delete], true);
        if ($takesIdsOnly && $request->to->kind !== 'session') {
            $request = $request->for(Target::session('AAAN5xSVtmv6fR3q'));
            $case['hex'] = bin2hex(Wire::request($request, $case['request']));
        }
        $peer = Peer::router('good');
        (new ApiRouter($peer->address))->ask($request);
        $bytes = hex2bin($peer->events('command', 1)[0]['hex']);
        // Its numbers begin anywhere; the field comes first.
        $numbered = substr_replace($bytes, pack('N', $case['request']), 11, 4);
        $this->assertSame(self::parted(self::bytes($case)), self::parted($numbered));
    }

    /** @dataProvider answers */
    public function testAnswers(array $case): void
    {
        $reader = new FrameReader();
        foreach (str_split(self::bytes($case)) as $byte) {
            $this->assertNull($reader->next());
            $reader->push($byte);
        }
        $answer = $reader->next();
        $this->assertTrue($reader->isEmpty());
        $this->assertSame($case['request'] ?? null, $answer->number());
        if (isset($case['receipt'])) {
            $this->assertEquals(new Receipt(...array_slice($case['receipt'], 0, 8)), Wire::receipt($answer));
        } elseif (isset($case['error'])) {
            $this->assertSame([$case['error'], $case['text']], self::refusal($answer));
        } else {
            $this->assertSame($case['result'] ?? null, Wire::result($answer));
        }
    }

    private static function refusal(Frame $answer): array
    {
        try {
            Wire::result($answer);
        } catch (Refused $refused) {
            return [$refused->error, $refused->text];
        }
        return [];
    }

    public function testAnswersThatAreBrokenAreNone(): void
    {
        $broken = [
            'a type of nobody' => pack('nnN', 0x4D00, 0, 0),
            'a body of 4 GiB' => pack('nnN', Frame::RESULT, 0, 0xFFFFFFFF),
            'half a field' => Wire::frame(Frame::RECEIPT, "\6\0"),
            'a field that goes on behind slen' => Wire::frame(Frame::RECEIPT, "\6\0\5abcd"),
        ];
        foreach ($broken as $what => $bytes) {
            $reader = new FrameReader();
            $reader->push($bytes);
            try {
                $reader->next();
                $this->fail($what);
            } catch (ProtocolError $error) {
                $this->assertTrue($error->mayBeDone());
            }
        }
        $this->expectException(ProtocolError::class);
        Wire::receipt(new Frame(Frame::RECEIPT, [Tag::COUNTS => str_repeat("\0", 28)]));
    }

    private static function bytes(array $case): string
    {
        return hex2bin(str_replace(' ', '', $case['hex']));
    }

    /**
     * Type, fields in a fixed order, and body: two requests with equal parts are the same request.
     *
     * @return array{int, list<string>, string}
     */
    private static function parted(string $bytes): array
    {
        ['type' => $type, 'slen' => $slen, 'len' => $len] = unpack('ntype/nslen/Nlen', $bytes);
        self::assertSame(8 + $slen + $len, strlen($bytes));
        $fields = [];
        for ($at = 8; $at < 8 + $slen; $at += 3 + $length) {
            ['tag' => $tag, 'length' => $length] = unpack('Ctag/nlength', $bytes, $at);
            $value = substr($bytes, $at + 3, $length);
            // The exceptions are a set: ids may be in one field or in several.
            $values = $tag === 0x18 ? str_split($value, 16) : [$value];
            // The defaults for an absent code or reason.
            $isDefault = $tag === 0x23 && $value === pack('n', 1000) || $tag === 0x24 && $value === '';
            foreach ($isDefault ? [] : $values as $one) {
                $fields[] = sprintf('%02x %s', $tag, bin2hex($one));
            }
        }
        sort($fields);
        return [$type, $fields, bin2hex(substr($bytes, 8 + $slen))];
    }

    private static function request(array $case): Request
    {
        $text = static fn (string $key): ?string => isset($case["{$key}_hex"])
            ? hex2bin($case["{$key}_hex"])
            : $case[$key] ?? null;
        $to = isset($case['to']) ? self::target($case['to']) : null;
        $excepts = array_map(self::target(...), self::list($case['except'] ?? []));
        $to = $excepts === [] ? $to : $to->except(...$excepts);
        $kind = ['text' => Kind::Text, 'binary' => Kind::Binary][$case['kind'] ?? ''] ?? null;
        $page = ['after' => $text('after'), 'limit' => $case['limit'] ?? null];
        return match ($case['do'] ?? $case['ask']) {
            'send' => Request::send($to, (string) $text('body'), $kind, $text('key'), $text('id')),
            'join' => Request::join($to, $text('channel')),
            'leave' => Request::leave($to, $text('channel')),
            'close' => Request::close($to, $case['code'], (string) $text('reason'), (string) $text('last'), $kind),
            'bind' => Request::bind($to, $text('uid')),
            'unbind' => Request::unbind($to),
            'set' => array_key_exists('expect', $case) || isset($case['expect_hex'])
                ? Request::compareAndSet($to, $text('key'), $text('expect'), (string) $text('value'))
                : Request::set($to, $text('key'), (string) $text('value')),
            'delete' => Request::delete($to, $text('key')),
            'exists' => Request::exists($to),
            'attribute' => new Request(Verb::Attribute, Target::session($text('of')), name: $text('key')),
            'session' => new Request(Verb::Session, Target::session($text('of'))),
            'channel' => new Request(Verb::Channel, Target::channel($text('of')), ...$page),
            'uid' => new Request(Verb::Uid, Target::uid($text('of')), ...$page),
            'channels' => new Request(Verb::Channels, ...$page),
            'sessions' => new Request(Verb::Sessions, ...$page),
            'node' => new Request(Verb::Node),
            'nodes' => new Request(Verb::Nodes),
        };
    }

    private static function list(string|array $one): array
    {
        return is_array($one) ? $one : [$one];
    }

    private static function target(string|array $said): Target
    {
        return is_array($said) ? Target::session(...$said) : Target::parse($said);
    }
}

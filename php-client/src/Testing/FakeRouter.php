<?php

declare(strict_types=1);

namespace Longwire\Client\Testing;

use Longwire\Client\Exception;
use Longwire\Client\Internal\Log;
use Longwire\Client\Internal\Report;
use Longwire\Client\Internal\Verbs;
use Longwire\Client\Internal\Wire;
use Longwire\Client\Kind;
use Longwire\Client\Receipt;
use Longwire\Client\Refused;
use Longwire\Client\Request;
use Longwire\Client\RouterInterface;
use Longwire\Client\Target;
use Longwire\Client\Verb;
use Psr\EventDispatcher\EventDispatcherInterface;
use Psr\Log\LoggerInterface;

/**
 * A router in memory, for tests of code that uses one.
 *
 *     $fake = new FakeRouter();
 *     $ada = $fake->connect();
 *     $fake->join(Target::session($ada->id), 'news');
 *     (new Newsroom($fake))->announce('hello');       // what is tested
 *     $ada->bodies();                                 // ['hello']
 *     $fake->assertPublished('news', 'hello');
 *
 * It has no slow readers: every existing session is reached. It refuses everything that a Router, or a Longwire with default limits,
 * refuses.
 */
final class FakeRouter implements RouterInterface
{
    use Assertions;
    use Verbs;

    /** The default limits of a router. */
    private const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;
    private const MAX_CHANNELS = 100;
    private const MAX_ATTRIBUTE_BYTES = 4096;

    /** @var array<string, FakeSession> the connected sessions, by their ids, the oldest first */
    private array $here = [];
    /** @var list<Request> */
    private array $requests = [];
    private ?Exception $failure = null;
    private int $made = 0;
    private readonly Log $log;
    private readonly Report $report;

    /**
     * @param LoggerInterface|callable|null $log    for quietly(), as that of a Router
     * @param EventDispatcherInterface|null $events gets the events that a Router's dispatcher gets
     */
    public function __construct(LoggerInterface|callable|null $log = null, ?EventDispatcherInterface $events = null)
    {
        $this->log = Log::to($log);
        $this->report = new Report($events);
    }

    /** Connects a client. */
    public function connect(): FakeSession
    {
        $session = new FakeSession(sprintf('Fake%012d', ++$this->made));
        return $this->here[$session->id] = $session;
    }

    /** Disconnects a client; it leaves its channels. */
    public function disconnect(FakeSession $session): void
    {
        unset($this->here[$session->id]);
        $session->channels = [];
    }

    /** From now on every request throws this, as if the router were down; null ends that. */
    public function failWith(?Exception $failure): void
    {
        $this->failure = $failure;
    }

    /** @return list<Request> all requests, including failed ones, the oldest first */
    public function requests(): array
    {
        return $this->requests;
    }

    /**
     * @param non-empty-list<Request> $requests
     *
     * @return list<Receipt|Refused>
     */
    protected function commands(array $requests): array
    {
        $this->take($requests);
        return array_map($this->do(...), $requests);
    }

    protected function query(Request $request): ?string
    {
        $this->take([$request]);
        $answer = $this->answer($request);
        $flags = JSON_THROW_ON_ERROR | JSON_INVALID_UTF8_SUBSTITUTE;
        return is_array($answer) ? json_encode($answer, $flags) : $answer;
    }

    protected function log(): Log
    {
        return $this->log;
    }

    protected function report(): Report
    {
        return $this->report;
    }

    /** @param list<Request> $requests */
    private function take(array $requests): void
    {
        array_map(Wire::check(...), $requests);
        array_push($this->requests, ...$requests);
        if ($this->failure !== null) {
            throw $this->failure;
        }
        foreach ($requests as $request) {
            if (strlen($request->body) > self::MAX_MESSAGE_BYTES) {
                $bytes = strlen($request->body);
                throw new Refused('bad_frame', "a length of $bytes is above the limit of " . self::MAX_MESSAGE_BYTES);
            }
        }
    }

    private function do(Request $request): Receipt|Refused
    {
        if ($request->kind === Kind::Text && !self::isText($request->body)) {
            return new Refused('not_text', 'the message is of kind text and not UTF-8');
        }
        // Only queries have no target.
        $to = $request->to ?? Target::session();
        $left = $to->kind === 'session' ? array_diff($to->names, array_keys($this->here)) : [];
        $receipt = new Receipt(gone: count($left));
        foreach ($this->selected($to) as $session) {
            $isDone = $this->doWith($session, $request);
            $receipt = $receipt->plus($isDone ? new Receipt(reached: 1) : new Receipt(refused: 1));
        }
        $this->done[] = $request;
        return $receipt;
    }

    private function doWith(FakeSession $session, Request $request): bool
    {
        $name = (string) $request->name;
        switch ($request->verb) {
            case Verb::Send:
                $session->received[] = self::message($request);
                break;
            case Verb::Join:
                if (count($session->channels) >= self::MAX_CHANNELS && !in_array($name, $session->channels, true)) {
                    return false;
                }
                $session->channels = array_values(array_unique([...$session->channels, $name]));
                break;
            case Verb::Leave:
                $session->channels = array_values(array_diff($session->channels, [$name]));
                break;
            case Verb::Close:
                if ($request->body !== '') {
                    $session->received[] = self::message($request);
                }
                [$session->closeCode, $session->closeReason] = [$request->code ?? 1000, (string) $request->reason];
                $this->disconnect($session);
                break;
            case Verb::Bind:
                $session->uid = $name;
                break;
            case Verb::Unbind:
                $session->uid = null;
                break;
            case Verb::Set:
                $now = $session->attributes[strtolower($name)] ?? null;
                if ($request->expectAbsent && $now !== null || $request->expect !== null && $request->expect !== $now) {
                    return false;
                }
                $attributes = [strtolower($name) => $request->body] + $session->attributes;
                if (strlen(implode('', $attributes) . implode('', array_keys($attributes))) > self::MAX_ATTRIBUTE_BYTES) {
                    return false;
                }
                $session->attributes = $attributes;
                break;
            case Verb::Delete:
                unset($session->attributes[strtolower($name)]);
                break;
            default:
        }
        return true;
    }

    /** @return array<string, mixed>|string|null */
    private function answer(Request $request): array|string|null
    {
        $to = $request->to ?? Target::all();
        $name = $to->names[0] ?? '';
        $session = $this->here[$name] ?? null;
        return match ($request->verb) {
            Verb::Attribute => $session?->attributes[strtolower((string) $request->name)] ?? null,
            Verb::Session => $session === null ? null : self::shown($session),
            Verb::Channel => ['channel' => $name] + $this->sessionsPage($request, $to),
            Verb::Uid => ['uid' => $name] + $this->sessionsPage($request, $to),
            Verb::Sessions => $this->sessionsPage($request, $to),
            Verb::Channels => $this->channelsPage($request),
            Verb::Node => $this->nodeShown(),
            Verb::Nodes => ['nodes' => [$this->nodeShown()]],
            default => throw new \LogicException("{$request->verb->name} is not a query"),
        };
    }

    /** @return array<string, mixed> */
    private function nodeShown(): array
    {
        return [
            'node' => 'fake',
            'number' => 0,
            'version' => '0.1.0',
            'sessions' => count($this->here),
            'channels' => count($this->counts()),
            'uids' => count(array_unique(array_filter(array_column($this->here, 'uid'), 'is_string'))),
            'draining' => false,
            'seconds' => 0,
        ];
    }

    /** @return list<FakeSession> */
    private function selected(Target $target): array
    {
        $isExcepted = static fn (FakeSession $session): bool => array_filter(
            $target->except,
            static fn (Target $except): bool => self::isOf($session, $except),
        ) !== [];
        return array_values(array_filter(
            $this->here,
            static fn (FakeSession $session): bool => self::isOf($session, $target) && !$isExcepted($session),
        ));
    }

    private static function isOf(FakeSession $session, Target $target): bool
    {
        return match ($target->kind) {
            'session' => in_array($session->id, $target->names, true),
            'uid' => $session->uid === $target->names[0],
            'channel' => in_array($target->names[0], $session->channels, true),
            'all' => true,
        };
    }

    /** @return array<string, mixed> */
    private function sessionsPage(Request $request, Target $target): array
    {
        $ids = array_map(static fn (FakeSession $session): string => $session->id, $this->selected($target));
        [$page, $next] = self::page($request, $ids);
        return ['count' => count($ids), 'sessions' => $page] + $next;
    }

    /** @return array<string, int> members by channel */
    private function counts(): array
    {
        return array_count_values(array_merge(...array_column($this->here, 'channels')));
    }

    /** @return array<string, mixed> */
    private function channelsPage(Request $request): array
    {
        $counts = $this->counts();
        [$page, $next] = self::page($request, array_map('strval', array_keys($counts)));
        $shown = static fn (string $name): array => ['channel' => $name, 'count' => $counts[$name]];
        return ['count' => count($counts), 'channels' => array_map($shown, $page)] + $next;
    }

    /**
     * @param list<string> $all
     *
     * @return array{list<string>, array{next?: string}}
     */
    private static function page(Request $request, array $all): array
    {
        sort($all, SORT_STRING);
        $limit = $request->limit ?? 100;
        $isAfter = static fn (string $name): bool => strcmp($name, $request->after ?? '') > 0;
        $rest = array_values(array_filter($all, $isAfter));
        $page = array_slice($rest, 0, $limit);
        $next = $page !== [] && count($rest) > $limit ? ['next' => end($page)] : [];
        return [$page, $next];
    }

    /** @return array<string, mixed> */
    private static function shown(FakeSession $session): array
    {
        return [
            'session' => $session->id,
            'uid' => $session->uid,
            'attributes' => (object) $session->attributes,
            'channels' => $session->channels,
            'app' => 'fake',
            'listener' => 'fake',
            'framing' => 'websocket',
            'queued_bytes' => 0,
            'seconds' => 0,
        ];
    }

    private static function message(Request $request): FakeMessage
    {
        $kind = $request->kind ?? (self::isText($request->body) ? Kind::Text : Kind::Binary);
        return new FakeMessage($request->body, $kind, $request->key);
    }

    private static function isText(string $bytes): bool
    {
        return preg_match('//u', $bytes) === 1;
    }
}

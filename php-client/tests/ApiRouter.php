<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use Longwire\Client\Internal\Log;
use Longwire\Client\Internal\Report;
use Longwire\Client\Internal\Verbs;
use Longwire\Client\InvalidArgument;
use Longwire\Client\Receipt;
use Longwire\Client\Refused;
use Longwire\Client\Request;
use Longwire\Client\RouterInterface;
use Longwire\Client\Target;
use Longwire\Client\Verb;

require_once dirname(__DIR__) . '/api.php';

/** api.php behind the verbs of the package, so that the same tests run on both. */
final class ApiRouter implements RouterInterface
{
    use Verbs;

    private \RouterClient $client;

    public function __construct(string $address, ?string $secret = null)
    {
        $this->client = new \RouterClient($address, 0, $secret, ['timeout' => 20.0, 'throw' => true]);
    }

    /** Any request, its answer unread. */
    public function ask(Request $request): void
    {
        $request->verb->value < Verb::Attribute->value ? $this->sent($request) : $this->query($request);
    }

    protected function log(): Log
    {
        return Log::to(static function (): void {
        });
    }

    protected function report(): Report
    {
        return new Report(null);
    }

    protected function commands(array $requests): array
    {
        if (count($requests) === 1) {
            return [self::receipt($this->sent($requests[0]))];
        }
        $this->client->begin();
        foreach ($requests as $request) {
            try {
                $this->sent($request);
            } catch (Refused | InvalidArgument $error) {
                // It keeps its place.
            }
        }
        return array_map(
            fn (array|false $receipt) => $receipt ? self::receipt($receipt) : self::refused($this->client->lastError()),
            $this->client->commit(),
        );
    }

    private function sent(Request $request): array|bool
    {
        try {
            return $this->asCalled($request);
        } catch (\RuntimeException $error) {
            throw self::refused($error->getMessage());
        }
    }

    private function asCalled(Request $request): array|bool
    {
        $client = $this->client;
        $ids = $request->to->names;
        $to = $request->to->kind === 'session' ? $ids : rtrim("{$request->to->kind}:" . implode($ids), ':');
        // all: has no name, a channel without one keeps its colon.
        $to = $to === 'channel' ? 'channel:' : $to;
        $options = array_filter([
            'except' => array_merge(...array_map(self::excepts(...), $request->to->except)),
            'type' => $request->kind?->word(),
        ]) + ($request->key === null ? [] : ['key' => $request->key])
            + ($request->id === null ? [] : ['id' => $request->id]);
        $name = (string) $request->name;
        switch ($request->verb) {
            case Verb::Send:
                return $client->send($to, $request->body, $options);
            case Verb::Join:
                return $client->join($to, $name, $options);
            case Verb::Leave:
                return $client->leave($to, $name, $options);
            case Verb::Close:
                return $client->closeSession($to, $request->code, (string) $request->reason, $request->body, $options);
            case Verb::Bind:
                return $client->bindUid($ids, $name);
            case Verb::Unbind:
                return $client->unbindUid($ids);
            case Verb::Delete:
                return $client->delAttr($ids, $name);
            case Verb::Set:
                // These take sessions only.
                $ids = $request->to->kind === 'uid' ? $client->uid($ids[0])['sessions'] : $ids;
                return $request->expect !== null || $request->expectAbsent
                    ? $client->compareAndSetAttr($ids, $name, $request->expect, $request->body)
                    : $client->setAttr($ids, $name, $request->body);
            case Verb::Exists:
                $there = $client->exists($ids);
                $zero = array_fill_keys(['close', 'oldest', 'newest', 'latest'], 0);
                $receipt = ['reached' => $there, 'queued' => 0, 'dropped' => $zero, 'refused' => 0];
                return $receipt + ['gone' => count($ids) - $there];
            default:
                throw new \LogicException('it is a query');
        }
    }

    /** @return list<string> */
    private static function excepts(Target $except): array
    {
        $shown = static fn (string $name): string => "$except->kind:$name";
        return $except->names === [] ? [$except->kind] : array_map($shown, $except->names);
    }

    protected function query(Request $request): ?string
    {
        $name = $request->to?->names[0] ?? '';
        $limit = $request->limit ?? 100;
        try {
            $answer = match ($request->verb) {
                Verb::Attribute => $this->client->getAttr($name, (string) $request->name),
                Verb::Session => $this->client->session($name),
                Verb::Channel => $this->client->channel($name, $request->after, $limit),
                Verb::Uid => $this->client->uid($name, $request->after, $limit),
                Verb::Channels => $this->client->channels($request->after, $limit),
                Verb::Sessions => $this->client->sessionList($request->after, $limit),
                Verb::Node => $this->client->node(),
                Verb::Nodes => $this->client->nodes(),
            };
        } catch (\RuntimeException $error) {
            throw self::refused($error->getMessage());
        }
        return is_array($answer) ? json_encode($answer) : $answer;
    }

    private static function receipt(array $receipt): Receipt
    {
        $dropped = $receipt['dropped'];
        return new Receipt(
            $receipt['reached'],
            $receipt['queued'],
            $dropped['close'],
            $dropped['oldest'],
            $dropped['newest'],
            $dropped['latest'],
            $receipt['refused'],
            $receipt['gone'],
        );
    }

    private static function refused(string $error): Refused|InvalidArgument
    {
        return preg_match('/^(not_text|bad_field|bad_frame): (.*)/s', $error, $parts) === 1
            ? new Refused($parts[1], $parts[2])
            : new InvalidArgument($error);
    }
}

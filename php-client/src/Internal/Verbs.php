<?php

declare(strict_types=1);

namespace Longwire\Client\Internal;

use Longwire\Client\Batch;
use Longwire\Client\Exception;
use Longwire\Client\InvalidArgument;
use Longwire\Client\Kind;
use Longwire\Client\ProtocolError;
use Longwire\Client\QuietRouter;
use Longwire\Client\Receipt;
use Longwire\Client\Refused;
use Longwire\Client\Request;
use Longwire\Client\RouterInterface;
use Longwire\Client\Target;
use Longwire\Client\Verb;

/**
 * Implements the verbs of a RouterInterface as requests. A class that uses it must run these requests.
 *
 * @internal
 *
 * @phpstan-import-type SessionData from RouterInterface
 * @phpstan-import-type ChannelPage from RouterInterface
 * @phpstan-import-type UidPage from RouterInterface
 * @phpstan-import-type ChannelsPage from RouterInterface
 * @phpstan-import-type SessionsPage from RouterInterface
 * @phpstan-import-type NodeData from RouterInterface
 * @phpstan-import-type NodesData from RouterInterface
 */
trait Verbs
{
    /**
     * Runs commands in order.
     *
     * @param non-empty-list<Request> $requests
     *
     * @return list<Receipt|Refused> one for each command
     *
     * @throws Exception
     */
    abstract protected function commands(array $requests): array;

    /** The body of the answer; null if the object of the query does not exist. */
    abstract protected function query(Request $request): ?string;

    /** The log of a QuietRouter of this router. */
    abstract protected function log(): Log;

    abstract protected function report(): Report;

    /**
     * Calls $ask, which sends the requests, and reports if it throws.
     *
     * @template T
     *
     * @param list<Request> $requests
     * @param \Closure(): T $ask
     *
     * @return T
     */
    private function reported(array $requests, \Closure $ask): mixed
    {
        try {
            return $ask();
        } catch (InvalidArgument $wrong) {
            // Nothing was sent, so nothing came back.
            throw $wrong;
        } catch (Exception $error) {
            $this->report()->failure($requests, $error);
            throw $error;
        }
    }

    private function command(Request $request): Receipt
    {
        $answer = $this->reported([$request], fn (): array => $this->commands([$request]))[0];
        $this->report()->answer($request, $answer);
        return $answer instanceof Receipt ? $answer : throw $answer;
    }

    /** @return array<string, mixed>|null */
    private function read(Request $request): ?array
    {
        return $this->reported([$request], function () use ($request): ?array {
            $json = $this->query($request);
            return $json === null ? null : self::decoded($json);
        });
    }

    /** @return array<string, mixed> */
    private static function decoded(string $json): array
    {
        $value = json_decode($json, true);
        if (!is_array($value)) {
            throw new ProtocolError('the router sent an answer that is not JSON');
        }
        /** @var array<string, mixed> $value */
        return $value;
    }

    /** @return array<string, mixed> */
    private function list(Verb $verb, ?Target $of, ?string $after, ?int $limit): array
    {
        $request = new Request($verb, $of, after: $after, limit: $limit);
        return $this->read($request) ?? throw new ProtocolError('the router answered that the list does not exist');
    }

    public function send(Target $to, string $message, ?Kind $kind = null, ?string $key = null, ?string $id = null): Receipt
    {
        return $this->command(Request::send($to, $message, $kind, $key, $id));
    }

    public function publish(string $channel, string $message, ?Kind $kind = null, ?string $key = null, ?string $id = null): Receipt
    {
        return $this->command(Request::send(Target::channel($channel), $message, $kind, $key, $id));
    }

    public function join(Target $who, string $channel): Receipt
    {
        return $this->command(Request::join($who, $channel));
    }

    public function leave(Target $who, string $channel): Receipt
    {
        return $this->command(Request::leave($who, $channel));
    }

    public function close(
        Target $who,
        int $code = 1000,
        string $reason = '',
        string $last = '',
        ?Kind $kind = null,
    ): Receipt {
        return $this->command(Request::close($who, $code, $reason, $last, $kind));
    }

    public function bind(Target $who, string $uid): Receipt
    {
        return $this->command(Request::bind($who, $uid));
    }

    public function unbind(Target $who): Receipt
    {
        return $this->command(Request::unbind($who));
    }

    public function set(Target $who, string $key, string $value): Receipt
    {
        return $this->command(Request::set($who, $key, $value));
    }

    public function compareAndSet(Target $who, string $key, ?string $expected, string $value): Receipt
    {
        return $this->command(Request::compareAndSet($who, $key, $expected, $value));
    }

    public function delete(Target $who, string $key): Receipt
    {
        return $this->command(Request::delete($who, $key));
    }

    public function exists(Target $who): Receipt
    {
        return $this->command(Request::exists($who));
    }

    public function attribute(string $session, string $key): ?string
    {
        $request = new Request(Verb::Attribute, Target::session($session), name: $key);
        return $this->reported([$request], fn (): ?string => $this->query($request));
    }

    public function session(string $session): ?array
    {
        /** @var SessionData|null $answer */
        $answer = $this->read(new Request(Verb::Session, Target::session($session)));
        return $answer;
    }

    public function channel(string $channel, ?string $after = null, int $limit = 100): array
    {
        /** @var ChannelPage $answer */
        $answer = $this->list(Verb::Channel, Target::channel($channel), $after, $limit);
        return $answer;
    }

    public function uid(string $uid, ?string $after = null, int $limit = 100): array
    {
        /** @var UidPage $answer */
        $answer = $this->list(Verb::Uid, Target::uid($uid), $after, $limit);
        return $answer;
    }

    public function channels(?string $after = null, int $limit = 100): array
    {
        /** @var ChannelsPage $answer */
        $answer = $this->list(Verb::Channels, null, $after, $limit);
        return $answer;
    }

    public function sessions(?string $after = null, int $limit = 100): array
    {
        /** @var SessionsPage $answer */
        $answer = $this->list(Verb::Sessions, null, $after, $limit);
        return $answer;
    }

    public function node(): array
    {
        /** @var NodeData $answer */
        $answer = $this->list(Verb::Node, null, null, null);
        return $answer;
    }

    public function nodes(): array
    {
        /** @var NodesData $answer */
        $answer = $this->list(Verb::Nodes, null, null, null);
        return $answer;
    }

    public function batch(): Batch
    {
        return new Batch($this->batched(...));
    }

    /**
     * Runs the commands of a batch. A command that cannot be sent keeps its place among the answers, and the others are run.
     *
     * @param non-empty-list<Request> $requests
     *
     * @return list<Receipt|Refused>
     */
    private function batched(array $requests): array
    {
        $answers = [];
        foreach ($requests as $place => $request) {
            try {
                Wire::check($request);
            } catch (InvalidArgument $wrong) {
                // The router would use this word.
                $answers[$place] = new Refused('bad_field', $wrong->getMessage());
            }
        }
        $places = array_keys(array_diff_key($requests, $answers));
        if ($places !== []) {
            $sent = array_map(static fn (int $place): Request => $requests[$place], $places);
            $answers += array_combine($places, $this->reported($sent, fn (): array => $this->commands($sent)));
        }
        ksort($answers);
        foreach ($requests as $place => $request) {
            $this->report()->answer($request, $answers[$place]);
        }
        return array_values($answers);
    }

    public function quietly(): QuietRouter
    {
        return new QuietRouter($this, $this->log());
    }
}

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
use Longwire\Client\Target;
use Longwire\Client\Verb;

/**
 * Implements the verbs of a RouterInterface as requests. A class that uses it must run these requests.
 *
 * @internal
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

    /** @return \Closure(string): void the log of a QuietRouter of this router */
    abstract protected function log(): \Closure;

    private function command(Request $request): Receipt
    {
        $answer = $this->commands([$request])[0];
        return $answer instanceof Receipt ? $answer : throw $answer;
    }

    /** @return array<string, mixed>|null */
    private function read(Request $request): ?array
    {
        $json = $this->query($request);
        if ($json === null) {
            return null;
        }
        $value = json_decode($json, true);
        return is_array($value) ? $value : throw new ProtocolError('the router sent an answer that is not JSON');
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
        return $this->query(new Request(Verb::Attribute, Target::session($session), name: $key));
    }

    public function session(string $session): ?array
    {
        return $this->read(new Request(Verb::Session, Target::session($session)));
    }

    public function channel(string $channel, ?string $after = null, int $limit = 100): array
    {
        return $this->list(Verb::Channel, Target::channel($channel), $after, $limit);
    }

    public function uid(string $uid, ?string $after = null, int $limit = 100): array
    {
        return $this->list(Verb::Uid, Target::uid($uid), $after, $limit);
    }

    public function channels(?string $after = null, int $limit = 100): array
    {
        return $this->list(Verb::Channels, null, $after, $limit);
    }

    public function sessions(?string $after = null, int $limit = 100): array
    {
        return $this->list(Verb::Sessions, null, $after, $limit);
    }

    public function node(): array
    {
        return $this->list(Verb::Node, null, null, null);
    }

    public function nodes(): array
    {
        return $this->list(Verb::Nodes, null, null, null);
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
        $sent = array_diff_key($requests, $answers);
        if ($sent !== []) {
            $answers += array_combine(array_keys($sent), $this->commands(array_values($sent)));
        }
        ksort($answers);
        return $answers;
    }

    public function quietly(): QuietRouter
    {
        return new QuietRouter($this, $this->log());
    }
}

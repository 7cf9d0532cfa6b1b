<?php

declare(strict_types=1);

namespace Longwire\Client;

/**
 * Commands that are collected and sent at once: one round trip for all of them.
 *
 *     [$joined, $sent] = $router->batch()->join(Target::session($id), 'news')->publish('news', 'hello')->run();
 */
final class Batch
{
    /** @var list<Request> */
    private array $requests = [];

    /**
     * @internal $router->batch() makes one
     *
     * @param \Closure(non-empty-list<Request>): list<Receipt|Refused> $commands
     */
    public function __construct(private readonly \Closure $commands)
    {
    }

    /**
     * Sends all of them, in their order, and empties the batch.
     *
     * @return list<Receipt|Refused> for each command its receipt, or the refusal: by the router, or here before it was sent, because
     *                               the router would have refused it
     *
     * @throws Exception if they could not all be sent and answered; mayBeDone() says whether some may have been done
     */
    public function run(): array
    {
        $requests = $this->requests;
        $this->requests = [];
        return $requests === [] ? [] : ($this->commands)($requests);
    }

    public function send(Target $to, string $message, ?Kind $kind = null, ?string $key = null, ?string $id = null): self
    {
        return $this->add(Request::send($to, $message, $kind, $key, $id));
    }

    public function publish(string $channel, string $message, ?Kind $kind = null, ?string $key = null, ?string $id = null): self
    {
        return $this->add(Request::send(Target::channel($channel), $message, $kind, $key, $id));
    }

    public function join(Target $who, string $channel): self
    {
        return $this->add(Request::join($who, $channel));
    }

    public function leave(Target $who, string $channel): self
    {
        return $this->add(Request::leave($who, $channel));
    }

    public function close(
        Target $who,
        int $code = 1000,
        string $reason = '',
        string $last = '',
        ?Kind $kind = null,
    ): self {
        return $this->add(Request::close($who, $code, $reason, $last, $kind));
    }

    public function bind(Target $who, string $uid): self
    {
        return $this->add(Request::bind($who, $uid));
    }

    public function unbind(Target $who): self
    {
        return $this->add(Request::unbind($who));
    }

    public function set(Target $who, string $key, string $value): self
    {
        return $this->add(Request::set($who, $key, $value));
    }

    public function compareAndSet(Target $who, string $key, ?string $expected, string $value): self
    {
        return $this->add(Request::compareAndSet($who, $key, $expected, $value));
    }

    public function delete(Target $who, string $key): self
    {
        return $this->add(Request::delete($who, $key));
    }

    public function exists(Target $who): self
    {
        return $this->add(Request::exists($who));
    }

    private function add(Request $request): self
    {
        $this->requests[] = $request;
        return $this;
    }
}

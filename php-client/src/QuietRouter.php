<?php

declare(strict_types=1);

namespace Longwire\Client;

use Longwire\Client\Internal\Log;

/**
 * A router for pages that must not fail because of it: it returns null instead of throwing, and writes a line to the log.
 *
 * A query for something that does not exist returns null too; only the log distinguishes the two. A page waits at most for the timeouts
 * of the router.
 */
final class QuietRouter
{
    /**
     * @internal $router->quietly() makes one
     */
    public function __construct(private readonly RouterInterface $router, private readonly Log $log)
    {
    }

    /**
     * Calls $use with the underlying router. If it throws, returns null and writes a line to the log.
     *
     * @template T
     *
     * @param callable(RouterInterface): T $use
     *
     * @return T|null
     */
    public function try(callable $use): mixed
    {
        try {
            return $use($this->router);
        } catch (Exception $error) {
            $this->log->warning($error->getMessage(), $error);
            return null;
        }
    }

    public function send(Target $to, string $message, ?Kind $kind = null, ?string $key = null, ?string $id = null): ?Receipt
    {
        return $this->try(static fn (RouterInterface $router) => $router->send($to, $message, $kind, $key, $id));
    }

    public function publish(string $channel, string $message, ?Kind $kind = null, ?string $key = null, ?string $id = null): ?Receipt
    {
        return $this->try(static fn (RouterInterface $router) => $router->publish($channel, $message, $kind, $key, $id));
    }

    public function join(Target $who, string $channel): ?Receipt
    {
        return $this->try(static fn (RouterInterface $router) => $router->join($who, $channel));
    }

    public function leave(Target $who, string $channel): ?Receipt
    {
        return $this->try(static fn (RouterInterface $router) => $router->leave($who, $channel));
    }

    public function close(
        Target $who,
        int $code = 1000,
        string $reason = '',
        string $last = '',
        ?Kind $kind = null,
    ): ?Receipt {
        return $this->try(static fn (RouterInterface $router) => $router->close($who, $code, $reason, $last, $kind));
    }

    public function bind(Target $who, string $uid): ?Receipt
    {
        return $this->try(static fn (RouterInterface $router) => $router->bind($who, $uid));
    }

    public function unbind(Target $who): ?Receipt
    {
        return $this->try(static fn (RouterInterface $router) => $router->unbind($who));
    }

    public function set(Target $who, string $key, string $value): ?Receipt
    {
        return $this->try(static fn (RouterInterface $router) => $router->set($who, $key, $value));
    }

    public function compareAndSet(Target $who, string $key, ?string $expected, string $value): ?Receipt
    {
        return $this->try(static fn (RouterInterface $r) => $r->compareAndSet($who, $key, $expected, $value));
    }

    public function delete(Target $who, string $key): ?Receipt
    {
        return $this->try(static fn (RouterInterface $router) => $router->delete($who, $key));
    }

    public function exists(Target $who): ?Receipt
    {
        return $this->try(static fn (RouterInterface $router) => $router->exists($who));
    }

    public function attribute(string $session, string $key): ?string
    {
        return $this->try(static fn (RouterInterface $router) => $router->attribute($session, $key));
    }

    /** @return array<string, mixed>|null */
    public function session(string $session): ?array
    {
        return $this->try(static fn (RouterInterface $router) => $router->session($session));
    }

    /** @return array<string, mixed>|null */
    public function channel(string $channel, ?string $after = null, int $limit = 100): ?array
    {
        return $this->try(static fn (RouterInterface $router) => $router->channel($channel, $after, $limit));
    }

    /** @return array<string, mixed>|null */
    public function uid(string $uid, ?string $after = null, int $limit = 100): ?array
    {
        return $this->try(static fn (RouterInterface $router) => $router->uid($uid, $after, $limit));
    }

    /** @return array<string, mixed>|null */
    public function channels(?string $after = null, int $limit = 100): ?array
    {
        return $this->try(static fn (RouterInterface $router) => $router->channels($after, $limit));
    }

    /** @return array<string, mixed>|null */
    public function sessions(?string $after = null, int $limit = 100): ?array
    {
        return $this->try(static fn (RouterInterface $router) => $router->sessions($after, $limit));
    }

    /** @return array<string, mixed>|null */
    public function node(): ?array
    {
        return $this->try(static fn (RouterInterface $router) => $router->node());
    }

    /** @return array<string, mixed>|null */
    public function nodes(): ?array
    {
        return $this->try(static fn (RouterInterface $router) => $router->nodes());
    }

    /**
     * Fills a batch and runs it.
     *
     * @param callable(Batch): mixed $fill
     *
     * @return list<Receipt|Refused>|null
     */
    public function batch(callable $fill): ?array
    {
        return $this->try(static function (RouterInterface $router) use ($fill): array {
            $batch = $router->batch();
            $fill($batch);
            return $batch->run();
        });
    }
}

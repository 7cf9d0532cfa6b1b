<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use Psr\EventDispatcher\EventDispatcherInterface;

/** Keeps the events that it gets, and then calls a listener, if there is one. */
final class Dispatcher implements EventDispatcherInterface
{
    /** @var list<object> */
    public array $events = [];

    public function __construct(private readonly ?\Closure $listener = null)
    {
    }

    public function dispatch(object $event): object
    {
        $this->events[] = $event;
        if ($this->listener !== null) {
            ($this->listener)($event);
        }
        return $event;
    }
}

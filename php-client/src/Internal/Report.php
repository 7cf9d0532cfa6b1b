<?php

declare(strict_types=1);

namespace Longwire\Client\Internal;

use Longwire\Client\Events\RequestDone;
use Longwire\Client\Events\RequestFailed;
use Longwire\Client\Events\RequestRefused;
use Longwire\Client\Events\SessionsGone;
use Longwire\Client\Exception;
use Longwire\Client\Receipt;
use Longwire\Client\Refused;
use Longwire\Client\Request;
use Psr\EventDispatcher\EventDispatcherInterface;

/**
 * Tells a PSR-14 dispatcher what came back from the router. Without a dispatcher it does nothing.
 *
 * @internal
 */
final class Report
{
    public function __construct(private readonly ?EventDispatcherInterface $events)
    {
    }

    /** @param Receipt|Refused $answer to a command */
    public function answer(Request $request, Receipt|Refused $answer): void
    {
        if ($answer instanceof Refused) {
            $this->events?->dispatch(new RequestRefused($request, $answer));
            return;
        }
        $this->events?->dispatch(new RequestDone($request, $answer));
        if ($answer->gone > 0) {
            $this->events?->dispatch(new SessionsGone($request, $request->to->names ?? [], $answer->gone));
        }
    }

    /** @param list<Request> $requests that got no answer because of this error */
    public function failure(array $requests, Exception $error): void
    {
        foreach ($requests as $request) {
            $isRefused = $error instanceof Refused && !$error->mayBeDone();
            $this->events?->dispatch($isRefused ? new RequestRefused($request, $error) : new RequestFailed($request, $error));
        }
    }
}

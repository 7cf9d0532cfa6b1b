<?php

namespace App\Http\Middleware;

use Closure;
use Illuminate\Http\Request;

/** Anybody can post to a route, but only Longwire can set a param of this name. */
class OnlyLongwire
{
    private const EVENTS = ['connect', 'message', 'close', 'join'];

    public function handle(Request $request, Closure $next)
    {
        $event = $request->server('LONGWIRE_EVENT');
        abort_unless(in_array($event, self::EVENTS, true), 404);

        // Laravel answers errors with JSON then: 401 and 422 where a page would be redirected.
        $request->headers->set('Accept', 'application/json');
        $answer = $next($request);
        if ($event === 'message' && $answer->getStatusCode() === 401) {
            // The login has run out: the code tells the client to go to the login page.
            $answer->headers->set('Longwire-Close', '4401 log in again');
        }

        return $answer;
    }
}

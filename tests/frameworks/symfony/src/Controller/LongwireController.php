<?php

namespace App\Controller;

use App\EventListener\AfterResponse;
use Symfony\Bundle\FrameworkBundle\Controller\AbstractController;
use Symfony\Component\HttpFoundation\Request;
use Symfony\Component\HttpFoundation\Response;
use Symfony\Component\HttpFoundation\StreamedResponse;

/** Events of clients on sockets. */
class LongwireController extends AbstractController
{
    private const EVENTS = ['connect', 'message', 'close', 'join'];

    private AfterResponse $later;

    public function __construct(AfterResponse $later)
    {
        $this->later = $later;
    }

    public function user(Request $request): Response
    {
        switch ($this->event($request)) {
            case 'connect':
                // A guest is sent to the login page, and so is no session.
                $this->denyAccessUnlessGranted('ROLE_USER');
                break;
            case 'message':
                // A frame cannot be redirected: the code tells the client to go to the login page.
                if (!$this->isGranted('ROLE_USER')) {
                    return new Response('', 200, ['Longwire-Close' => '4401 log in again']);
                }
        }

        // A close event is the last one of its session, whether the login has run out by then or not.
        return $this->visitor($request);
    }

    public function visitor(Request $request): Response
    {
        $session = $request->getSession();
        switch ($this->event($request)) {
            case 'connect':
                $name = $this->getUser() ? $this->getUser()->getUserIdentifier() : 'visitor';
                $session->set('seen', true);
                $answer = new Response("hello $name");
                $answer->headers->set('Longwire-Uid', $name);
                $answer->headers->set('Longwire-Set', ['door=socket', 'lang=en']);

                return $answer;
            case 'close':
                file_put_contents($this->path('closed'), $request->server->get('LONGWIRE_UID')."\n", FILE_APPEND);

                return new Response();
            case 'join':
                $channel = $request->server->get('LONGWIRE_CHANNEL');

                return new Response("welcome to $channel", 200, ['Longwire-To' => "channel:$channel"]);
        }

        [$word, $rest] = explode(' ', $request->getContent(), 2) + [1 => ''];
        switch ($word) {
            case 'count':
                $session->set('n', $session->get('n', 0) + 1);

                return new Response("n={$session->get('n')}");
            case 'who':
                $server = $request->server;

                return $this->json([
                    'user' => $this->getUser() ? $this->getUser()->getUserIdentifier() : null,
                    'uid' => $server->get('LONGWIRE_UID'),
                    'attributes' => [$server->get('LONGWIRE_ATTR_DOOR'), $server->get('LONGWIRE_ATTR_LANG')],
                    'path' => $request->getPathInfo(),
                    'base' => $request->getBaseUrl(),
                    'home' => $this->generateUrl('home', [], 0),
                ]);
            case 'enter':
                return new Response('', 200, ['Longwire-Join' => $rest]);
            case 'later':
                $this->later->work = $this->path($rest);

                return new Response('at once');
            case 'throw':
                throw new \RuntimeException('a trace that no client may read');
            case 'dump':
                dd($request->server->all());
            case 'lost':
                throw $this->createNotFoundException();
            case 'stream':
                return new StreamedResponse(function (): void {
                    foreach (['one', 'two', 'three'] as $line) {
                        echo "$line\n";
                        ob_get_level() and ob_flush();
                        flush();
                        AfterResponse::until($this->path("after-$line"));
                    }
                }, 200, ['Longwire-Stream' => 'lines']);
            default:
                return new Response(strrev($request->getContent()));
        }
    }

    /** The event. Anybody can post to these paths, but only Longwire can set a param of this name. */
    private function event(Request $request): string
    {
        $event = $request->server->get('LONGWIRE_EVENT');
        if (!in_array($event, self::EVENTS, true)) {
            throw $this->createNotFoundException();
        }

        return $event;
    }

    private function path(string $name): string
    {
        return $this->getParameter('kernel.project_dir').'/var/'.basename($name);
    }
}

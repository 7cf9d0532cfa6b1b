<?php

namespace App\Http\Controllers;

use Illuminate\Http\Request;
use Illuminate\Routing\Controller;
use RuntimeException;

/** Events of clients on sockets. */
class LongwireController extends Controller
{
    public function __invoke(Request $request)
    {
        switch ($request->server('LONGWIRE_EVENT')) {
            case 'connect':
                return $this->connected($request);
            case 'message':
                return $this->message($request);
            case 'close':
                file_put_contents($this->path('closed'), $request->server('LONGWIRE_UID')."\n", FILE_APPEND);

                return response('');
            case 'join':
                $channel = $request->server('LONGWIRE_CHANNEL');

                return response("welcome to $channel")->header('Longwire-To', "channel:$channel");
        }
    }

    private function connected(Request $request)
    {
        $name = $request->user()->name ?? 'visitor';
        $request->session()->put('seen', true);

        return response("hello $name")->withHeaders([
            'Longwire-Uid' => $name,
            'Longwire-Set' => ['door=socket', 'lang=en'],
        ]);
    }

    private function message(Request $request)
    {
        $session = $request->session();
        [$word, $rest] = explode(' ', $request->getContent(), 2) + [1 => ''];
        switch ($word) {
            case 'count':
                return "n={$session->increment('n')}";
            case 'who':
                return response()->json([
                    'user' => $request->user()->name ?? null,
                    'uid' => $request->server('LONGWIRE_UID'),
                    'attributes' => [$request->server('LONGWIRE_ATTR_DOOR'), $request->server('LONGWIRE_ATTR_LANG')],
                    'path' => $request->getPathInfo(),
                    'base' => $request->getBaseUrl(),
                    'home' => route('home'),
                ]);
            case 'enter':
                return response('')->header('Longwire-Join', $rest);
            case 'later':
                app()->terminating(fn () => $this->work($this->path($rest)));

                return 'at once';
            case 'throw':
                throw new RuntimeException('a trace that no client may read');
            case 'dump':
                dd($request->server->all());
            case 'order':
                validator(['pieces' => $rest], ['pieces' => 'required|integer'])->validate();

                return "ordered $rest";
            case 'lost':
                abort(404, 'Not Found');
            case 'stream':
                return response()->stream(function () {
                    foreach (['one', 'two', 'three'] as $line) {
                        echo "$line\n";
                        ob_get_level() and ob_flush();
                        flush();
                        $this->until($this->path("after-$line"));
                    }
                }, 200, ['Longwire-Stream' => 'lines']);
            default:
                return strrev($request->getContent());
        }
    }

    /** Work that no client waits for: it lasts until there is a file of this name with `-go` behind it. */
    private function work(string $name)
    {
        touch("$name-begun");
        $this->until("$name-go");
        // Nobody may ever read this.
        @header('Longwire-Close: 4000 printed too late');
        echo 'printed too late';
        touch("$name-done");
    }

    private function path(string $name): string
    {
        return storage_path(basename($name));
    }

    private function until(string $file)
    {
        for ($i = 0; $i < 4000 && ! file_exists($file); $i++) {
            usleep(5000);
            clearstatcache();
        }
    }
}

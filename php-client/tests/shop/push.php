<?php

// Pushes to a client of a running Longwire, and checks what it gets: push.php, with LONGWIRE_ROUTER and LONGWIRE_TCP in the environment.
// Prints "pushed". Everything of longwire/client comes from vendor/.

declare(strict_types=1);

use Longwire\Client\Events\RequestDone;
use Longwire\Client\Router;
use Longwire\Client\Target;
use Psr\EventDispatcher\EventDispatcherInterface;
use Psr\Log\AbstractLogger;
use Shop\Newsroom;

require __DIR__ . '/vendor/autoload.php';

function check(bool $holds, string $what): void
{
    $holds || exit("not so: $what\n");
}

/** @param resource $socket */
function frame($socket): string
{
    $length = unpack('N', (string) stream_get_contents($socket, 4))[1];
    return (string) stream_get_contents($socket, $length);
}

$socket = stream_socket_client('tcp://' . getenv('LONGWIRE_TCP'));
stream_set_timeout($socket, 20);
$wish = json_encode(['event' => true]);
fwrite($socket, pack('N', strlen($wish)) . $wish);
$session = json_decode(frame($socket), true, 512, JSON_THROW_ON_ERROR)['session'];

$log = new class extends AbstractLogger {
    /** @var list<string> */
    public array $lines = [];

    public function log($level, $message, array $context = []): void
    {
        $this->lines[] = "$level $message " . $context['exception']::class;
    }
};
$events = new class implements EventDispatcherInterface {
    /** @var list<object> */
    public array $all = [];

    public function dispatch(object $event): object
    {
        return $this->all[] = $event;
    }
};
$router = new Router(getenv('LONGWIRE_ROUTER'), ioTimeout: 20.0, log: $log, events: $events);
check($router->join(Target::session($session), 'news')->reached === 1, 'the client joins');
(new Newsroom($router))->announce('Rain', $session);
check(frame($socket) === '{"title":"Rain"}', 'the article arrives');
check(frame($socket) === '1 readers', 'the count arrives');
$kinds = array_map(static fn (object $event): string => $event::class, $events->all);
check($kinds === [RequestDone::class, RequestDone::class, RequestDone::class], 'a dispatcher gets three events');
check($router->quietly()->publish('', 'x') === null, 'a channel without a name is refused');
check(str_starts_with($log->lines[0], 'warning longwire/client: a channel has '), 'a PSR-3 logger gets a warning');

$file = (new ReflectionClass(Router::class))->getFileName();
check(str_contains($file, $argv[1]), "the package is loaded from a path with $argv[1], not $file");
echo "pushed\n";

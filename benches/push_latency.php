<?php
/*
 * Measures how long a PHP script needs to reach a client. It compares sendMsg and its receipt with a plain Redis PUBLISH to one
 * subscriber, in turns in one run. "Receipt" is the time until the script has its answer, "socket" until the client has the frame.
 *
 *   php benches/push_latency.php ROUTER_PORT TCP_PORT REDIS_PORT [ROUNDS]
 *
 * TCP_PORT is a listener with the default framing (a 4-byte length) whose handler echoes SESSIONID, for instance
 * `<?php echo $_SERVER['SESSIONID'];`. For Redis, run `redis-server --port REDIS_PORT --save ''`.
 */

require __DIR__ . '/../php-client/api.php';

[$router_port, $tcp_port, $redis_port] = array_map('intval', array_slice($argv, 1, 3)) + [0, 0, 0];
$rounds = (int) ($argv[4] ?? 20000);
if (!$router_port || !$tcp_port || !$redis_port || $rounds < 1) {
    fwrite(STDERR, "usage: php benches/push_latency.php ROUTER_PORT TCP_PORT REDIS_PORT [ROUNDS]\n");
    exit(2);
}

function dial(int $port)
{
    $socket = stream_socket_client("tcp://127.0.0.1:$port", $code, $text, 2);
    if (!$socket) {
        fwrite(STDERR, "127.0.0.1:$port: $text\n");
        exit(1);
    }
    stream_set_timeout($socket, 5);
    return $socket;
}

function exactly($socket, int $count): string
{
    $bytes = '';
    while (strlen($bytes) < $count) {
        $more = fread($socket, $count - strlen($bytes));
        if ($more === false || $more === '') {
            fwrite(STDERR, "the other side said nothing more\n");
            exit(1);
        }
        $bytes .= $more;
    }
    return $bytes;
}

function frame($socket): string
{
    return exactly($socket, unpack('N', exactly($socket, 4))[1]);
}

function percentile(array $times, float $of): float
{
    sort($times);
    return $times[(int) floor($of * (count($times) - 1))] / 1000;
}

$client = dial($tcp_port);
fwrite($client, pack('N', 1) . '?');
$sid = frame($client);
$router = new RouterClient('127.0.0.1', $router_port);

$subscriber = dial($redis_port);
fwrite($subscriber, "SUBSCRIBE channel\r\n");
exactly($subscriber, strlen("*3\r\n$9\r\nsubscribe\r\n$7\r\nchannel\r\n:1\r\n"));
$redis = dial($redis_port);

$message = str_repeat('x', 64);
$published = "*3\r\n$7\r\nmessage\r\n$7\r\nchannel\r\n$64\r\n$message\r\n";
$publish = "*3\r\n$7\r\nPUBLISH\r\n$7\r\nchannel\r\n$64\r\n$message\r\n";
$times = ['longwire receipt' => [], 'longwire socket' => [], 'redis receipt' => [], 'redis socket' => []];

for ($round = -1000; $round < $rounds; $round++) {
    $start = hrtime(true);
    $receipt = $router->sendMsg($sid, $message);
    $answered = hrtime(true);
    if (!$receipt || $receipt['reached'] !== 1 || frame($client) !== $message) {
        fwrite(STDERR, "the message did not arrive\n");
        exit(1);
    }
    $arrived = hrtime(true);

    $redis_start = hrtime(true);
    fwrite($redis, $publish);
    exactly($redis, 4);
    $redis_answered = hrtime(true);
    exactly($subscriber, strlen($published));
    $redis_arrived = hrtime(true);

    if ($round >= 0) {
        $times['longwire receipt'][] = $answered - $start;
        $times['longwire socket'][] = $arrived - $start;
        $times['redis receipt'][] = $redis_answered - $redis_start;
        $times['redis socket'][] = $redis_arrived - $redis_start;
    }
}

printf("%-18s %10s %10s   (microseconds, %d rounds)\n", '', 'p50', 'p99', $rounds);
foreach ($times as $what => $all) {
    printf("%-18s %10.1f %10.1f\n", $what, percentile($all, 0.5), percentile($all, 0.99));
}

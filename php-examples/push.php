<?php

// Sends a message to all connected clients or to a channel, for example from a cron job or a trigger that notices a change.
// `php push.php --help` shows the options.

declare(strict_types=1);

include __DIR__ . '/api.php';

const USAGE = <<<'TEXT'
    usage: php push.php [--router HOST:PORT] [--channel NAME] [--] [MESSAGE ...]

      --router HOST:PORT  where Longwire takes commands (127.0.0.1:9010); unix:PATH for a Unix socket
      --channel NAME      only those who are in this channel, instead of everybody
      MESSAGE             words, joined by spaces; without any, what comes on standard input

    A router that asks for a secret finds it in the environment, in LONGWIRE_SECRET.
    Status 0: the router has answered, its receipt is printed. 1: it has not, or not in time. 2: wrong arguments.
    TEXT;

[$address, $channel, $message] = arguments(array_slice($argv, 1));
if ($message === '') {
    misuse('there is nothing to send');
}
$secret = getenv('LONGWIRE_SECRET') ?: null;
$router = new RouterClient($address, 9010, $secret, ['throw' => true]);
// A text frame on a WebSocket must be UTF-8. Other framings do not distinguish text and binary.
$options = ['type' => preg_match('//u', $message) ? 'text' : 'binary'];
try {
    $receipt = $channel === null
        ? $router->sendAllMsg($message, $options)
        : $router->publish($channel, $message, $options);
} catch (RuntimeException $error) {
    fwrite(STDERR, 'push.php: ' . $error->getMessage() . "\n");
    exit(1);
}
echo $channel === null ? 'everybody' : "channel $channel", ': ', told($receipt), "\n";

/**
 * Not getopt(): it skips unknown options, so with a mistyped --channel the message would go to everybody.
 *
 * @param string[] $arguments
 * @return array{string, ?string, string} router, channel, message
 */
function arguments(array $arguments): array
{
    $options = ['--router' => '127.0.0.1:9010', '--channel' => null];
    while ($arguments && strncmp($arguments[0], '--', 2) === 0) {
        $option = array_shift($arguments);
        if ($option === '--') {
            break;
        }
        if ($option === '--help') {
            echo USAGE, "\n";
            exit(0);
        }
        [$name, $value] = explode('=', $option, 2) + [1 => null];
        if (!array_key_exists($name, $options)) {
            misuse("there is no option $name");
        }
        $value ??= array_shift($arguments);
        if ($value === null || $value === '') {
            misuse("$name wants a value");
        }
        $options[$name] = $value;
    }
    // The output of `echo` ends with a newline that is not part of the message.
    $message = $arguments ? implode(' ', $arguments) : preg_replace('/\r?\n\z/', '', stream_get_contents(STDIN));
    return [$options['--router'], $options['--channel'], $message];
}

function misuse(string $why): never
{
    fwrite(STDERR, "push.php: $why\n" . USAGE . "\n");
    exit(2);
}

/** A receipt as a line: the number of sessions reached, and the other counts if they are not 0. */
function told(array $receipt): string
{
    $counts = array_filter([
        'waiting' => $receipt['queued'],
        'dropped' => array_sum($receipt['dropped']),
        'refused' => $receipt['refused'],
    ]);
    $line = "$receipt[reached] reached";
    foreach ($counts as $what => $count) {
        $line .= ", $count $what";
    }
    return $receipt['reached'] === 0 && !$counts ? "$line, nobody is there" : $line;
}

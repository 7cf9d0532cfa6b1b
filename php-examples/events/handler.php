<?php

// Who is here: connect and close keep a list in a file, every message may ask for it.

declare(strict_types=1);

$me = $_SERVER['SESSIONID'];

switch ($_SERVER['LONGWIRE_EVENT']) {
    case 'connect':
        $now = update(function (array $state) use ($me): array {
            $state['here'][$me] = ['messages' => 0];
            return $state;
        });
        echo 'Hello. ', people(count($now['here'])), ' here.';
        break;

    case 'message':
        $now = update(function (array $state) use ($me): array {
            $state['here'][$me]['messages'] = ($state['here'][$me]['messages'] ?? 0) + 1;
            return $state;
        });
        echo 'Your message ', $now['here'][$me]['messages'], '. ', people(count($now['here'])), ' here, ',
            $now['gone'], ' gone.';
        break;

    case 'close':
        // After a power failure this event may come twice. A list of names does not mind; a mere counter would.
        update(function (array $state) use ($me): array {
            if (isset($state['here'][$me])) {
                unset($state['here'][$me]);
                $state['gone']++;
            }
            return $state;
        });
        error_log("$me left: $_SERVER[LONGWIRE_CLOSE_REASON]");
        break;
}

function people(int $count): string
{
    return $count === 1 ? '1 client is' : "$count clients are";
}

/**
 * A folder of this user alone among the temporary files. Everybody knows its name, so another user of this machine could have been there
 * first, with a folder or a link of his own: then nothing is kept there.
 */
function folder(): string
{
    $folder = sys_get_temp_dir() . '/longwire-events-' . posix_geteuid();
    @mkdir($folder, 0700);
    $found = @lstat($folder);
    // A folder, no link to one, that nobody else may look into.
    if (!$found || ($found['mode'] & 0170077) !== 0040000 || $found['uid'] !== posix_geteuid()) {
        throw new RuntimeException("$folder is not a folder of this user alone");
    }
    return $folder;
}

/**
 * Reads the file, changes its content and writes it back, alone: events of different sessions run at the same time.
 *
 * @param callable(array): array $change
 */
function update(callable $change): array
{
    $file = fopen(folder() . '/here.json', 'c+');
    flock($file, LOCK_EX);
    $state = json_decode(stream_get_contents($file), true) ?? ['here' => [], 'gone' => 0];
    $state = $change($state);
    rewind($file);
    ftruncate($file, 0);
    fwrite($file, json_encode($state));
    fclose($file); // writes what is buffered, and gives the lock back
    return $state;
}

<?php

// Shows who is connected: connect and close events keep a list in a file, and every message is answered from it.

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
        // After a power failure this event may come twice. That does no harm to a list of names; a counter would be wrong.
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
 * A folder for temporary files that belongs to this user alone. Its name is known, so another user of this machine could have created a
 * folder or a link there first. In that case it is not used.
 */
function folder(): string
{
    $folder = sys_get_temp_dir() . '/longwire-events-' . posix_geteuid();
    @mkdir($folder, 0700);
    $found = @lstat($folder);
    // It must be a folder, not a link to one, and closed to other users.
    if (!$found || ($found['mode'] & 0170077) !== 0040000 || $found['uid'] !== posix_geteuid()) {
        throw new RuntimeException("$folder does not belong to this user alone");
    }
    return $folder;
}

/**
 * Reads the file, changes its content and writes it back. It holds a lock, because events of several sessions run at the same time.
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
    fclose($file); // flushes and releases the lock
    return $state;
}

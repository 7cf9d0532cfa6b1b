<?php

// A chat with names, rooms and private messages. index.html is its page; README.md explains both.

declare(strict_types=1);

require_once __DIR__ . '/../../php-client/api.php';

const FIRST_ROOM = 'lounge';
const MAX_LINE_BYTES = 2000;
const KEPT_LINES = 50;  // per room, for people who come later
const MAX_ROOMS = 100;  // with kept lines; beyond that, the lines of the room with the longest silence are deleted
const MAX_PEOPLE = 500;

// Attributes that earlier answers have set on this session with Longwire-Set: empty until it has entered.
$name = $_SERVER['LONGWIRE_ATTR_NAME'] ?? '';
$room = $_SERVER['LONGWIRE_ATTR_ROOM'] ?? '';

switch ($_SERVER['LONGWIRE_EVENT']) {
    case 'connect':
        forget_the_lost();
        answer(['is' => 'hello', 'people' => people(), 'session' => $_SERVER['SESSIONID'], 'node' => node()]);
        break;

    case 'message':
        $frame = json_decode(file_get_contents('php://input'), true);
        $ask = fn (string $key): string => is_string($frame[$key] ?? null) ? trim($frame[$key]) : '';
        $do = $ask('do');
        if ($do === 'enter') {
            enter($name === '' ? $ask('name') : $name, $ask('room') ?: FIRST_ROOM, $room, $ask('was'));
        } elseif ($name === '') {
            refuse('name', 'Say who you are first.');
        } elseif ($do === 'look') {
            answer(['is' => 'room', 'room' => $room, 'people' => people(), 'lines' => lines($room)]);
        } elseif ($do === 'say') {
            say($name, $room, $ask('text'));
        } elseif ($do === 'tell') {
            tell($name, $ask('to'), $ask('text'));
        } else {
            refuse('frame', 'This chat does not know what that means.');
        }
        break;

    case 'close':
        // This client is gone, but the others can be told. (After a power failure this event may come twice.)
        if ($name !== '' && forget($_SERVER['SESSIONID'])) {
            header('Longwire-To: channel:chat');
            answer(['is' => 'moved', 'name' => $name, 'from' => $room]);
        }
        break;
}

/** Enters the chat, changes the room, or comes back after the connection of the session `$was` was lost. */
function enter(string $name, string $room, string $from, string $was): void
{
    // These names are used in headers, so they must have no comma, no semicolon and no line break.
    if (!preg_match('/^[\p{L}\p{N}][\p{L}\p{M}\p{N} ._\'-]{0,23}$/u', $name)) {
        refuse('name', 'A name has 1 to 24 letters and digits.');
        return;
    }
    if (!preg_match('/^[\p{L}\p{N}][\p{L}\p{M}\p{N} _-]{0,23}$/u', $room)) {
        refuse('room', 'The name of a room has 1 to 24 letters and digits.');
        return;
    }
    $refusal = remember($_SERVER['SESSIONID'], $was, $name, $room);
    if ($refusal !== '') {
        // The name may be taken by a person who is already gone.
        forget_the_lost();
        $refusal = remember($_SERVER['SESSIONID'], $was, $name, $room);
    }
    if ($refusal !== '') {
        refuse('name', $refusal);
        return;
    }
    if ($from !== '' && $from !== $room) {
        header("Longwire-Leave: room:$from");
    }
    header("Longwire-Join: chat, room:$room");
    header('Longwire-Uid: ' . uid($name));
    header("Longwire-Set: name=$name");
    header("Longwire-Set: room=$room", false); // in addition to the other Longwire-Set, not instead of it
    // The message goes to all people, so every page knows who is in which room. This client gets it too, because it has joined before
    // the body is sent. Then it asks to `look`, which returns the kept lines; from now on it gets new lines as they come.
    header('Longwire-To: channel:chat');
    answer(['is' => 'moved', 'name' => $name, 'from' => $from, 'to' => $room]);
}

/** Sends a line to everybody in the room, including its author, for whom it confirms that the line has arrived. */
function say(string $name, string $room, string $text): void
{
    if (is_sayable($text)) {
        header("Longwire-To: channel:room:$room");
        answer(['is' => 'said', ...keep($room, ['name' => $name, 'text' => $text, 'at' => time()]), 'room' => $room]);
    }
}

/** Sends a line to one person, and back to its author. */
function tell(string $name, string $to, string $text): void
{
    $found = array_values(array_filter(people(), fn (array $person): bool => uid($person['name']) === uid($to)));
    if (!$found) {
        refuse('to', "$to is not here any more.");
    } elseif (is_sayable($text)) {
        header('Longwire-To: uid:' . uid($to));
        if (uid($to) !== uid($name)) {
            header('Longwire-To: self', false);
        }
        answer(['is' => 'told', 'from' => $name, 'to' => $found[0]['name'], 'text' => $text, 'at' => time()]);
    }
}

function is_sayable(string $text): bool
{
    if (strlen($text) > MAX_LINE_BYTES) {
        refuse('text', 'That is too long for one line.');
    }
    return $text !== '' && strlen($text) <= MAX_LINE_BYTES;
}

/** The key of a name: Ann and ann count as one person, because people would not distinguish them. */
function uid(string $name): string
{
    return 'chat:' . strtolower($name);
}

/** Answers the client that has asked, because there is no Longwire-To. */
function answer(array $frame): void
{
    header('Longwire-Type: text');
    echo json($frame);
}

function json(array $value): string
{
    return json_encode($value, JSON_UNESCAPED_UNICODE | JSON_THROW_ON_ERROR);
}

function refuse(string $about, string $text): void
{
    answer(['is' => 'refused', 'about' => $about, 'text' => $text]);
}

/** The people and their rooms: [['name' => ..., 'room' => ...], ...] */
function people(): array
{
    $shown = fn (array $person): array => ['name' => $person['name'], 'room' => $person['room']];
    return array_values(array_map($shown, stored('people', fn (array $people): array => $people)));
}

/** The node to which this session is connected. */
function node(): string
{
    return $_SERVER['LONGWIRE_NODE'] ?? '';
}

/**
 * Notes the room of a session; returns a sentence if that is not allowed.
 *
 * It replaces the earlier session of the same page, whose node may have been killed, or may not have noticed yet that the client is
 * gone. Only that page knows the id of its earlier session, so no other person can take the name this way.
 */
function remember(string $session, string $was, string $name, string $room): string
{
    $refusal = '';
    stored('people', function (array $people) use ($session, $was, $name, $room, &$refusal): array {
        $others = array_diff_key($people, [$session => true]);
        if (isset($others[$was]) && uid($others[$was]['name']) === uid($name)) {
            unset($others[$was]);
        }
        foreach ($others as $person) {
            if (uid($person['name']) === uid($name)) {
                $refusal = 'Somebody has that name already.';
                return $people;
            }
        }
        if (count($others) >= MAX_PEOPLE) {
            $refusal = 'The chat is full.';
            return $people;
        }
        return [$session => ['name' => $name, 'room' => $room, 'node' => node(), 'since' => time()]] + $others;
    });
    return $refusal;
}

function forget(string $session): bool
{
    $was_here = false;
    stored('people', function (array $people) use ($session, &$was_here): array {
        $was_here = isset($people[$session]);
        unset($people[$session]);
        return $people;
    });
    return $was_here;
}

/**
 * Removes people from the list who are no longer in the channel, and tells the others. Normally a close event does that. But the list is
 * in a file, and a Longwire that is killed loses its close events.
 */
function forget_the_lost(): void
{
    $noted = stored('people', fn (array $people): array => $people);
    if (!$noted || ($_SERVER['LONGWIRE_ROUTER'] ?? '') === '') {
        return;
    }
    $router = new RouterClient($_SERVER['LONGWIRE_ROUTER'], 9010, $_SERVER['ROUTER_SECRET'] ?? null);
    $members = $router->channel('chat', null, 1000);
    if (!$members || !empty($members['engine_down'])) {
        // Only this node has answered, so the people on other nodes are unknown.
        return;
    }
    $here = array_flip($members['sessions']);
    $silent = $members['unreachable'] ?? [];
    $lost = [];
    stored('people', function (array $people) use ($here, $silent, &$lost): array {
        $lost = array_filter(
            $people,
            // Keep people of a node that does not answer, because it may be alive. Also keep people who have just entered, because they
            // join the channel a moment after they are noted.
            fn (array $person, $session): bool => !isset($here[$session])
                && !in_array($person['node'] ?? '', $silent, true) && $person['since'] <= time() - 30,
            ARRAY_FILTER_USE_BOTH
        );
        return array_diff_key($people, $lost);
    });
    foreach ($lost as $person) {
        $left = ['is' => 'moved', 'name' => $person['name'], 'from' => $person['room']];
        $router->publish('chat', json($left), ['type' => 'text']);
    }
}

/** The last lines of a room: [['id' => 7, 'name' => ..., 'text' => ..., 'at' => ...], ...] */
function lines(string $room): array
{
    return stored(room_file($room), fn (array $lines): array => $lines);
}

/** Keeps a line and gives it a number, by which a page recognises a line that comes twice. */
function keep(string $room, array $line): array
{
    $lines = stored(room_file($room), function (array $lines) use ($line): array {
        $last = end($lines);
        $lines[] = ['id' => ($last ? $last['id'] : 0) + 1] + $line;
        return array_slice($lines, -KEPT_LINES);
    });
    if (count($lines) === 1) {
        $rooms = glob(folder() . '/room-*.json');
        usort($rooms, fn (string $a, string $b): int => filemtime($b) <=> filemtime($a));
        array_map('unlink', array_slice($rooms, MAX_ROOMS));
    }
    return end($lines);
}

function room_file(string $room): string
{
    return 'room-' . sha1($room);
}

/**
 * A folder for temporary files that belongs to this user alone. Its name is known, so another user of this machine could have created a
 * folder or a link there first. In that case it is not used.
 */
function folder(): string
{
    $folder = sys_get_temp_dir() . '/longwire-chat-' . posix_geteuid();
    @mkdir($folder, 0700);
    $found = @lstat($folder);
    // It must be a folder, not a link to one, and closed to other users.
    if (!$found || ($found['mode'] & 0170077) !== 0040000 || $found['uid'] !== posix_geteuid()) {
        throw new RuntimeException("$folder does not belong to this user alone");
    }
    return $folder;
}

/**
 * Reads a list from its file and writes it back if it has changed. It holds a lock, because events of several sessions run at the same
 * time.
 *
 * @param callable(array): array $change
 */
function stored(string $what, callable $change): array
{
    $file = fopen(folder() . "/$what.json", 'c+');
    flock($file, LOCK_EX);
    $before = json_decode(stream_get_contents($file), true) ?? [];
    $after = $change($before);
    if ($after !== $before) {
        rewind($file);
        ftruncate($file, 0);
        fwrite($file, json($after));
    }
    fclose($file); // flushes and releases the lock
    return $after;
}

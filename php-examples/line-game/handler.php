<?php

// A game over telnet. The game's state between two lines is kept in the session's attributes, without a file or a database.

declare(strict_types=1);

const HIGHEST = 100;

$line = trim(file_get_contents('php://input'));

if ($_SERVER['LONGWIRE_EVENT'] === 'connect') {
    think();
    echo 'I think of a number from 1 to ', HIGHEST, '. Which one is it?', "\r";
} elseif ($_SERVER['LONGWIRE_EVENT'] === 'message') {
    echo play($line), "\r"; // Longwire ends the line with LF, and telnet wants CR LF
}

/** Each line is one event, and events of a session never run at the same time. So no lock is needed. */
function play(string $line): string
{
    if ($line === 'quit') {
        header('Longwire-Close: 1000 bye');
        return 'Bye.';
    }
    if (!preg_match('/^\d{1,3}$/', $line)) {
        return 'A number, please, or quit.';
    }
    $guess = (int) $line;
    $secret = (int) $_SERVER['LONGWIRE_ATTR_SECRET'];
    $tries = (int) $_SERVER['LONGWIRE_ATTR_TRIES'] + 1;
    if ($guess === $secret) {
        think();
        return "Yes, after $tries " . ($tries === 1 ? 'try' : 'tries') . '. I think of another one: which?';
    }
    header("Longwire-Set: tries=$tries");
    return $guess < $secret ? 'More.' : 'Less.';
}

function think(): void
{
    header('Longwire-Set: secret=' . random_int(1, HIGHEST));
    header('Longwire-Set: tries=0', false); // in addition to the other one, not instead of it
}

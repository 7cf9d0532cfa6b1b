<?php

// A slow answer, like that of a language model or a long report: it is sent word by word while PHP still works.

declare(strict_types=1);

$question = trim(file_get_contents('php://input'));

if (str_starts_with($question, 'lines ')) {
    // Each line becomes a frame of its own as soon as it is flushed.
    header('Longwire-Stream: lines');
    foreach (think_about(substr($question, 6)) as $word) {
        emit("$word\n");
    }
} else {
    // One frame that is sent in pieces. With length framing the length must be announced first; otherwise the reply is held back until
    // it is complete. WebSocket and raw sockets need no length.
    $words = think_about($question);
    header('Content-Length: ' . strlen(implode(' ', $words)));
    foreach ($words as $i => $word) {
        emit($i === 0 ? $word : " $word");
    }
}

/** @return list<string> */
function think_about(string $question): array
{
    $words = preg_split('/\s+/', $question, flags: PREG_SPLIT_NO_EMPTY);
    return ['You', 'said', count($words), 'words:', ...array_reverse($words)];
}

/** Prints and flushes at once: PHP's own output buffer first, then php-fpm's. */
function emit(string $text): void
{
    echo $text;
    if (ob_get_level() > 0) {
        ob_flush();
    }
    flush();
    usleep(150_000); // the hard thinking
}

<?php

// For opcache.preload: what a frame needs is compiled once, when php-fpm starts. It stands in the folder of a shop, beside the list
// that `php preload.php list` writes when the shop's caches are warm.

if (isset($argv[1])) {
    // A message of a visitor, as a script on the command line can be told of one.
    $_SERVER = [
        'REQUEST_METHOD' => 'POST', 'REQUEST_URI' => '/open', 'CONTENT_TYPE' => 'text/plain', 'HTTP_HOST' => 'localhost',
        'SCRIPT_NAME' => '/index.php', 'SCRIPT_FILENAME' => __DIR__.'/public/index.php', 'REMOTE_ADDR' => '127.0.0.1',
        'SESSIONID' => 'x', 'LONGWIRE_EVENT' => 'message',
    ] + getenv();
    ob_start(fn () => '');
    require __DIR__.'/public/index.php';
    ob_end_clean();
    $files = array_filter(
        array_slice(get_included_files(), 1),
        // A file of functions is loaded by `require`, and PHP would declare them twice.
        fn (string $file): bool => !preg_match('/^function /m', file_get_contents($file)),
    );
    file_put_contents(__DIR__.'/preload.list', implode("\n", $files));
} else {
    array_map('opcache_compile_file', file(__DIR__.'/preload.list', FILE_IGNORE_NEW_LINES));
}

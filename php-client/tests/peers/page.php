<?php

// A page that publishes over a persistent connection, and dies in the middle of it when it gets a SIGALRM:
// page.php?client=Router|RouterClient&at=ADDRESS

declare(strict_types=1);

require dirname(__DIR__) . '/bootstrap.php';
require dirname(__DIR__, 2) . '/api.php';

pcntl_async_signals(true);
pcntl_signal(SIGALRM, static function (): void {
    exit('died');
});
if ($_GET['client'] === 'Router') {
    echo (new Longwire\Client\Router($_GET['at'], ioTimeout: 20.0, persistent: true))->publish('room', 'x')->reached;
} else {
    $client = new RouterClient($_GET['at'], 0, null, ['timeout' => 20.0, 'persistent' => true]);
    echo json_encode($client->publish('room', 'x')['reached'] ?? $client->lastError());
}

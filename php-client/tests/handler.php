<?php

declare(strict_types=1);

// The handler of the tests' listener: a message is JSON that describes the wanted answer.

use Longwire\Client\Event;
use Longwire\Client\EventKind;
use Longwire\Client\Kind;
use Longwire\Client\Reply;
use Longwire\Client\Router;
use Longwire\Client\Target;

require __DIR__ . '/bootstrap.php';

$event = Event::fromGlobals();
if ($event->kind === EventKind::Request) {
    (new Reply())->json(get_object_vars($event) + ['id' => $event->id()])->send();
    exit;
}
if ($event->kind !== EventKind::Message) {
    if (str_starts_with((string) $event->channel, 'watched ')) {
        (new Reply())->to(Target::uid('watcher'))->json(get_object_vars($event) + ['id' => $event->id()])->send();
    }
    exit;
}
$wish = $event->frame->json();
if (isset($wish['run'])) {
    require $wish['run'];
    exit;
}
$reply = new Reply();
foreach ($wish['reply'] ?? [] as [$method, $arguments]) {
    $arguments = array_map(static fn ($argument) => match (true) {
        is_array($argument) && isset($argument['target']) => target($argument),
        is_array($argument) && isset($argument['kind']) => Kind::from($argument['kind']),
        default => $argument,
    }, $arguments);
    $reply->$method(...$arguments);
}
if (isset($wish['event'])) {
    $reply->json(get_object_vars($event) + ['id' => $event->id()]);
}
if (isset($wish['publish'])) {
    // A page of a worker that keeps its connection.
    $router = new Router($wish['at'], persistent: true);
    $receipt = $router->publish($wish['publish'], $wish['message']);
    $reply->json(['pid' => getmypid(), 'reached' => $receipt->reached]);
}
if (isset($wish['noise'])) {
    $reply->send();
    echo $wish['noise'];
    exit;
}
$reply->send();

function target(array $said): Target
{
    return Target::parse($said['target'])->except(...array_map(Target::parse(...), $said['except'] ?? []));
}

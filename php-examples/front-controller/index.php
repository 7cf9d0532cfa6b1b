<?php

// One index.php for everything, as in frameworks: the path selects the action, the body has its input. The script need not know
// whether the request came from a web server or over a WebSocket.

declare(strict_types=1);

$routes = [
    '/' => fn (): array => ['try' => ['/ws/time', '/ws/reverse', '/ws/sum']],
    '/ws' => fn (): array => ['try' => ['/ws/time', '/ws/reverse', '/ws/sum']],
    '/ws/time' => fn (): array => ['time' => date(DATE_ATOM)],
    '/ws/reverse' => fn (string $body): array => ['reversed' => implode(array_reverse(preg_split('//u', $body)))],
    '/ws/sum' => sum(...),
];

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
$action = $routes[$path] ?? not_found(...);

header('Content-Type: application/json');
echo json_encode($action(file_get_contents('php://input')), JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE);

function sum(string $body): array
{
    $numbers = json_decode($body);
    if (!is_array($numbers) || array_filter($numbers, 'is_numeric') !== $numbers) {
        http_response_code(422);
        return ['error' => 'send a list of numbers, such as [1, 2, 3]'];
    }
    return ['sum' => array_sum($numbers)];
}

function not_found(): array
{
    http_response_code(404);
    return ['error' => 'nothing here'];
}

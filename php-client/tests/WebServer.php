<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

/** PHP's own web server: one process that serves one page after the other, as a worker of php-fpm does. */
final class WebServer
{
    private readonly string $address;
    /** @var resource */
    private $process;

    public function __construct()
    {
        $free = stream_socket_server('tcp://127.0.0.1:0');
        $this->address = stream_socket_get_name($free, false);
        fclose($free);
        $pipes = [];
        $nowhere = ['file', '/dev/null', 'w'];
        $command = [PHP_BINARY, '-S', $this->address, '-t', __DIR__ . '/peers'];
        $this->process = proc_open($command, [['file', '/dev/null', 'r'], $nowhere, $nowhere], $pipes);
        Patience::until('the web server listens', function (): bool {
            $socket = @stream_socket_client("tcp://$this->address");
            return $socket !== false && fclose($socket);
        });
    }

    public function __destruct()
    {
        proc_terminate($this->process, 9);
        proc_close($this->process);
    }

    public function pid(): int
    {
        return proc_get_status($this->process)['pid'];
    }

    /**
     * Asks for a page.
     *
     * @param array<string, string> $query
     *
     * @return \Closure(): string waits for what it prints
     */
    public function get(string $page, array $query): \Closure
    {
        $socket = stream_socket_client("tcp://$this->address");
        stream_set_timeout($socket, 20);
        fwrite($socket, "GET /$page?" . http_build_query($query) . " HTTP/1.0\r\nHost: localhost\r\n\r\n");
        return static fn (): string => explode("\r\n\r\n", (string) stream_get_contents($socket), 2)[1] ?? '';
    }
}

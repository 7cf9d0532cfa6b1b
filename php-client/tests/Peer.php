<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

/** A process started by the tests, peers/router.php in one mode. It prints its address and then its events. */
final class Peer
{
    /** Longest wait in seconds. */
    private const PATIENCE = 20.0;

    /** Its address. */
    public readonly string $address;
    /** @var resource */
    private $process;
    /** @var array<int, resource> */
    private array $pipes = [];
    private string $output = '';
    /** @var list<array<string, mixed>> the events so far */
    private array $events = [];

    /** @param list<string> $command */
    private function __construct(array $command)
    {
        $this->process = proc_open($command, [['pipe', 'r'], ['pipe', 'w'], STDERR], $this->pipes);
        stream_set_blocking($this->pipes[1], false);
        $this->address = $this->line(self::PATIENCE) ?? throw new \RuntimeException('the peer did not start');
    }

    /** @param string $address tcp://127.0.0.1:0 takes a port that is free */
    public static function router(string $mode, int $number = 0, string $address = 'tcp://127.0.0.1:0'): self
    {
        return new self([PHP_BINARY, __DIR__ . '/peers/router.php', $address, $mode, (string) $number]);
    }

    public function __destruct()
    {
        proc_terminate($this->process, 9);
        proc_close($this->process);
    }

    /**
     * Waits for this number of events of one kind and returns them.
     *
     * @return list<array<string, mixed>>
     */
    public function events(string $sort, int $atLeast = 0): array
    {
        while (true) {
            $events = array_values(array_filter($this->events, static fn (array $event) => isset($event[$sort])));
            $line = $this->line(count($events) < $atLeast ? self::PATIENCE : 0.0);
            if ($line === null) {
                return $events;
            }
            $this->events[] = json_decode($line, true, 512, JSON_THROW_ON_ERROR);
        }
    }

    /** The next line of the peer; null if none comes in that many seconds, or if the peer has ended. */
    private function line(float $seconds): ?string
    {
        $deadline = microtime(true) + $seconds;
        while (($end = strpos($this->output, "\n")) === false) {
            $read = [$this->pipes[1]];
            $none = null;
            $left = max(0, $deadline - microtime(true));
            $isReady = stream_select($read, $none, $none, (int) $left, (int) (fmod($left, 1) * 1e6)) > 0;
            $bytes = $isReady ? (string) fread($this->pipes[1], 65536) : '';
            if ($bytes === '') {
                return null;
            }
            $this->output .= $bytes;
        }
        $line = substr($this->output, 0, $end);
        $this->output = substr($this->output, $end + 1);
        return $line;
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client\Internal;

use Longwire\Client\Closed;
use Longwire\Client\ConnectFailed;
use Longwire\Client\Exception;
use Longwire\Client\ProtocolError;
use Longwire\Client\TimedOut;

/**
 * One greeted connection: open(), then transfer() as often as isIdle().
 *
 * The socket is blocking while nothing is under way, and not blocking during a greeting or a transfer, so that every
 * wait is one of select() and ends at a deadline. That also marks a persistent stream: one that is found not blocking
 * was left in the middle of something by a page that died, perhaps behind half of a command, and is not used again.
 *
 * @internal
 */
final class Connection
{
    private const READ_BYTES = 256 * 1024;
    private const WRITE_BYTES = 256 * 1024;
    /** connect() to a Unix socket whose backlog is full fails at once with this (Linux) ... */
    private const EAGAIN = 11;
    /** ... and is tried again after this. */
    private const BACKLOG_PAUSE_MICROSECONDS = 2000;

    /** How often a socket is looked at that select() cannot wait for. */
    private const LOOK_AGAIN_MICROSECONDS = 1000;

    private readonly FrameReader $reader;
    private readonly int $pid;
    private int $written = 0;
    private bool $isKept = false;

    /** @param resource $socket */
    private function __construct(private $socket)
    {
        $this->reader = new FrameReader();
        $this->pid = (int) getmypid();
    }

    /**
     * @param string $url     tcp://host:port or unix:///path
     * @param float  $timeout seconds for the connection and the greeting together
     *
     * @throws Exception
     */
    public static function open(string $url, float $timeout, Greeter $greeter, string $peer, ?string $keptAs): self
    {
        $deadline = self::now() + $timeout;
        $connection = new self(self::connect($url, $timeout, $keptAs));
        if ($keptAs !== null && ftell($connection->socket) > 0) {
            if ($connection->isLeftWhole()) {
                $connection->isKept = true;
                return $connection;
            }
            $connection->close();
            $connection = new self(self::connect($url, $deadline - self::now(), $keptAs));
        }
        try {
            $connection->greet($greeter, $peer, $deadline);
        } catch (\Throwable $error) {
            $connection->close();
            throw $error;
        }
        return $connection;
    }

    /** @return resource */
    private static function connect(string $url, float $timeout, ?string $keptAs)
    {
        $deadline = self::now() + $timeout;
        do {
            $left = max(0.001, $deadline - self::now());
            // Persistent streams are found by their URL. That of TCP may have a path, which tells this one from others; for a Unix socket a port
            // below 0 does that, which is part of the key and of nothing else (main/streams of PHP).
            $socket = match (true) {
                $keptAs !== null && str_starts_with($url, 'tcp:') => @stream_socket_client(
                    "$url/$keptAs",
                    $code,
                    $message,
                    $left,
                    STREAM_CLIENT_CONNECT | STREAM_CLIENT_PERSISTENT,
                ),
                $keptAs !== null && function_exists('pfsockopen') => @pfsockopen(
                    $url,
                    -1 - (crc32($keptAs) & 0x7FFFFFFE),
                    $code,
                    $message,
                    $left,
                ),
                default => @stream_socket_client($url, $code, $message, $left),
            };
            $isBacklogFull = $socket === false && $code === self::EAGAIN && str_starts_with($url, 'unix:');
            if ($isBacklogFull) {
                usleep(self::BACKLOG_PAUSE_MICROSECONDS);
            }
        } while ($isBacklogFull && self::now() < $deadline);
        if ($socket === false) {
            throw new ConnectFailed($message !== '' ? $message : 'no connection');
        }
        return $socket;
    }

    /** Whether a stream that an earlier page left was greeted and is between two requests. */
    private function isLeftWhole(): bool
    {
        return stream_get_meta_data($this->socket)['blocked'] === true && $this->isIdle();
    }

    /** Nothing is there to be read, not even an end: what a connection between two requests looks like. */
    public function isIdle(): bool
    {
        // Two routers of one page share a persistent stream, so the other may have closed it. A fork shares it truly.
        if (!is_resource($this->socket) || $this->pid !== getmypid() || !$this->reader->isEmpty()) {
            return false;
        }
        $read = [$this->socket];
        $none = null;
        // Not feof(): it waits for default_socket_timeout when there is nothing to read.
        $ready = @stream_select($read, $none, $none, 0);
        return $ready === false ? $this->hasNothingToRead() : $ready === 0;
    }

    /** The same by a look at the socket, where select() cannot: it knows no descriptor above 1023. */
    private function hasNothingToRead(): bool
    {
        $wasBlocking = stream_get_meta_data($this->socket)['blocked'];
        stream_set_blocking($this->socket, false);
        // False: there is nothing; empty: it has ended.
        $isQuiet = @stream_socket_recvfrom($this->socket, 1, STREAM_PEEK) === false;
        stream_set_blocking($this->socket, $wasBlocking);
        return $isQuiet;
    }

    /** It was there before the requests that are sent now, so that the router may have closed it meanwhile. */
    public function isKept(): bool
    {
        return $this->isKept;
    }

    /** Bytes of the last transfer that the kernel has taken. */
    public function written(): int
    {
        return $this->written;
    }

    public function close(): void
    {
        if (is_resource($this->socket)) {
            @fclose($this->socket);
        }
    }

    private function greet(Greeter $greeter, string $peer, float $deadline): void
    {
        stream_set_blocking($this->socket, false);
        stream_set_write_buffer($this->socket, 0);
        [$challenge] = $this->exchange($greeter->hello($peer), 1, $deadline);
        [$welcome] = $this->exchange($greeter->challenged($challenge), 1, $deadline);
        $greeter->welcomed($welcome);
        stream_set_blocking($this->socket, true);
    }

    /**
     * Sends requests and reads as many answers as there are numbers, each to its request.
     *
     * @param list<int> $numbers of the requests, in their order
     * @param float     $deadline as now() tells the time
     *
     * @return list<Frame>
     *
     * @throws Exception after which the connection is of no use
     */
    public function transfer(string $requests, array $numbers, float $deadline): array
    {
        stream_set_blocking($this->socket, false);
        $answers = $this->exchange($requests, count($numbers), $deadline);
        foreach ($answers as $i => $answer) {
            if ($answer->number() !== $numbers[$i]) {
                // An error without a number is about the connection: the requests before it have been done.
                Wire::throwError($answer, $i > 0);
                throw new ProtocolError('the router answered another request than this one', true);
            }
        }
        stream_set_blocking($this->socket, true);
        $this->isKept = true;
        return $answers;
    }

    /**
     * Writes and reads by turns, for a router whose answers nobody reads stops reading too.
     *
     * @return list<Frame>
     */
    private function exchange(string $output, int $count, float $deadline): array
    {
        $this->written = 0;
        $frames = [];
        while (count($frames) < $count) {
            $frame = $this->reader->next();
            if ($frame === null) {
                $this->turn($output, $deadline);
                continue;
            }
            $frames[] = $frame;
            if ($frame->type === Frame::ERROR && $frame->number() === null) {
                // No answer to anything else follows it.
                return array_pad($frames, $count, $frame);
            }
        }
        return $frames;
    }

    /** Waits until something can be written or read, and does it. */
    private function turn(string $output, float $deadline): void
    {
        $left = $deadline - self::now();
        if ($left <= 0) {
            throw new TimedOut('the router did not answer in time', $this->written > 0);
        }
        $read = [$this->socket];
        $write = $this->written < strlen($output) ? [$this->socket] : null;
        $none = null;
        $ready = @stream_select($read, $write, $none, (int) $left, (int) (fmod($left, 1) * 1e6));
        if ($ready === false) {
            // A signal, or a descriptor that select() does not know: above 1023, in a process with many files. The socket does not
            // block, so it can be asked itself, after a moment; the deadline still holds.
            usleep(self::LOOK_AGAIN_MICROSECONDS);
            [$read, $write] = [[$this->socket], $this->written < strlen($output) ? [$this->socket] : null];
        }
        if ($write) {
            $written = @fwrite($this->socket, substr($output, $this->written, self::WRITE_BYTES));
            // What the router said before it closed, an error perhaps, is still to be read: then read() finds the end.
            $this->written += (int) $written;
            if ($written === false && !$read) {
                throw $this->closed();
            }
        }
        if ($read) {
            $this->read();
        }
    }

    private function read(): void
    {
        $bytes = @fread($this->socket, self::READ_BYTES);
        if ($bytes === false || $bytes === '' && stream_get_meta_data($this->socket)['eof']) {
            throw $this->closed();
        }
        $this->reader->push($bytes);
    }

    private function closed(): Closed
    {
        return new Closed('the router closed the connection before it had answered', $this->written > 0);
    }

    /** Seconds on a clock that nobody sets. */
    public static function now(): float
    {
        return hrtime(true) / 1e9;
    }
}

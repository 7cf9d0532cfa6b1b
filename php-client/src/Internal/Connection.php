<?php

declare(strict_types=1);

namespace Longwire\Client\Internal;

use Longwire\Client\Closed;
use Longwire\Client\ConnectFailed;
use Longwire\Client\Exception;
use Longwire\Client\ProtocolError;
use Longwire\Client\TimedOut;

/**
 * One connection after the handshake: call open(), then transfer() as long as isIdle() is true.
 *
 * The socket is blocking while idle, and non-blocking during a handshake or a transfer, so that every wait is a select() with a deadline.
 * This also marks a persistent stream: a non-blocking one was left in the middle of a transfer by a page that died, perhaps after half of
 * a command. It is not used again.
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

    /** The pause between two looks at a socket for which select() cannot wait. */
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
     * @param float  $timeout seconds for the connection and the handshake together
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
            // Persistent streams are found by their URL. A TCP URL may have a path, which distinguishes this stream from others. For a Unix
            // socket a port below 0 does that; it becomes part of the key and has no other effect (main/streams of PHP).
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

    /** Whether an earlier page's stream has completed its handshake and is between two requests. */
    private function isLeftWhole(): bool
    {
        return stream_get_meta_data($this->socket)['blocked'] === true && $this->isIdle();
    }

    /** Whether there is nothing to read, not even an end of stream, as between two requests. */
    public function isIdle(): bool
    {
        // Two routers of one page share a persistent stream, so the other one may have closed it. After a fork, parent and child share it.
        if (!is_resource($this->socket) || $this->pid !== getmypid() || !$this->reader->isEmpty()) {
            return false;
        }
        $read = [$this->socket];
        $none = null;
        // Not feof(), because it waits for default_socket_timeout if there is nothing to read.
        $ready = @stream_select($read, $none, $none, 0);
        return $ready === false ? $this->hasNothingToRead() : $ready === 0;
    }

    /** The same by peeking at the socket, for descriptors above 1023, with which select() fails. */
    private function hasNothingToRead(): bool
    {
        $wasBlocking = stream_get_meta_data($this->socket)['blocked'];
        stream_set_blocking($this->socket, false);
        // False: nothing to read; empty: it has ended.
        $isQuiet = @stream_socket_recvfrom($this->socket, 1, STREAM_PEEK) === false;
        stream_set_blocking($this->socket, $wasBlocking);
        return $isQuiet;
    }

    /** Whether it was open before the current requests, so that the router may have closed it meanwhile. */
    public function isKept(): bool
    {
        return $this->isKept;
    }

    /** How many bytes of the last transfer the kernel has taken. */
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
     * Sends requests and reads one answer for each number.
     *
     * @param list<int> $numbers of the requests, in their order
     * @param float     $deadline as now() tells the time
     *
     * @return list<Frame>
     *
     * @throws Exception after which the connection must not be used
     */
    public function transfer(string $requests, array $numbers, float $deadline): array
    {
        stream_set_blocking($this->socket, false);
        $answers = $this->exchange($requests, count($numbers), $deadline);
        foreach ($answers as $i => $answer) {
            if ($answer->number() !== $numbers[$i]) {
                // An error without a number concerns the connection. The requests before it have been done.
                Wire::throwError($answer, $i > 0);
                throw new ProtocolError('the router answered another request than this one', true);
            }
        }
        stream_set_blocking($this->socket, true);
        $this->isKept = true;
        return $answers;
    }

    /**
     * Writes and reads in turns, because a router whose answers are not read stops reading too.
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
                // No further answers follow it.
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
            // A signal, or a descriptor above 1023, with which select() fails. The socket is non-blocking, so try it directly after a
            // moment; the deadline still holds.
            usleep(self::LOOK_AGAIN_MICROSECONDS);
            [$read, $write] = [[$this->socket], $this->written < strlen($output) ? [$this->socket] : null];
        }
        if ($write) {
            $written = @fwrite($this->socket, substr($output, $this->written, self::WRITE_BYTES));
            // Read first what the router sent before it closed, perhaps an error. Then read() finds the end.
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

    /** Seconds of a monotonic clock. */
    public static function now(): float
    {
        return hrtime(true) / 1e9;
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

/** A client of the listener under test: TCP, each frame behind its length as four bytes. */
final class Client
{
    private const PATIENCE_SECONDS = 20;

    /** Its session id. */
    public readonly string $id;
    /** @var resource */
    private $socket;

    public function __construct()
    {
        $this->socket = stream_socket_client('tcp://' . Environment::get('LONGWIRE_TCP'));
        stream_set_timeout($this->socket, self::PATIENCE_SECONDS);
        $this->id = $this->ask(['event' => true])['session'];
    }

    /** Sends the handler a wish (handler.php). */
    public function send(array $wish): void
    {
        $frame = json_encode($wish, JSON_THROW_ON_ERROR);
        fwrite($this->socket, pack('N', strlen($frame)) . $frame);
    }

    /** Sends a wish and reads the answer to it, which is JSON. */
    public function ask(array $wish): mixed
    {
        $this->send($wish);
        return json_decode((string) $this->frame(), true, 512, JSON_THROW_ON_ERROR);
    }

    /** The next frame, waiting for it; null when the connection has ended. */
    public function frame(): ?string
    {
        $head = $this->read(4);
        return $head === null ? null : $this->read(unpack('N', $head)[1]);
    }

    /** @return list<string> */
    public function frames(int $count): array
    {
        return array_map(fn (): ?string => $this->frame(), range(1, $count));
    }

    public function close(): void
    {
        if (is_resource($this->socket)) {
            fclose($this->socket);
        }
    }

    private function read(int $bytes): ?string
    {
        $read = '';
        while (strlen($read) < $bytes) {
            $piece = (string) fread($this->socket, $bytes - strlen($read));
            if ($piece === '') {
                if (stream_get_meta_data($this->socket)['timed_out']) {
                    throw new \RuntimeException('waited in vain for a frame');
                }
                return null;
            }
            $read .= $piece;
        }
        return $read;
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client;

use Longwire\Client\Internal\Check;

/**
 * What a handler answers: headers that act on its session, and a frame to the client or to others.
 *
 *     (new Reply())->join('news')->set('room', 'kitchen')->text('welcome')->send();
 *
 * The headers act in the order in which they were called for, before the body is sent. A frame from to() goes there
 * instead of back to the client.
 */
final class Reply
{
    /** @var list<array{string, string}> */
    private array $headers = [];
    private ?string $body = null;
    private ?int $status = null;

    /** This session joins channels. */
    public function join(string ...$channels): self
    {
        return $this->channels('Longwire-Join', $channels);
    }

    /** This session leaves channels. */
    public function leave(string ...$channels): self
    {
        return $this->channels('Longwire-Leave', $channels);
    }

    /** This session belongs to a user; null: to nobody. */
    public function uid(?string $uid): self
    {
        if ($uid !== null) {
            Check::name('a uid', $uid);
            self::checkSpaces('a uid', $uid);
        }
        return $this->header('Longwire-Uid', (string) $uid);
    }

    /** Sets an attribute of this session. A value with line breaks or spaces at its ends is for Router::set(). */
    public function set(string $key, string $value): self
    {
        Check::attributeKey($key);
        self::checkSpaces('the value of an attribute in a header', $value);
        return $this->header('Longwire-Set', "$key=$value");
    }

    /** Deletes an attribute of this session. */
    public function delete(string $key): self
    {
        Check::attributeKey($key);
        return $this->header('Longwire-Set', $key);
    }

    /** What a client of an event stream calls the body when it comes back (Last-Event-ID). */
    public function id(string $id): self
    {
        Check::name('the id of a message', $id);
        self::checkSpaces('the id of a message', $id);
        return $this->header('Longwire-Id', $id);
    }

    /**
     * The body goes there, and no longer back to the client. Several calls are several receivers.
     *
     * @param bool        $exceptSelf not to this session
     * @param string|null $key        for channels that keep only the latest message per key
     */
    public function to(Target $target, bool $exceptSelf = false, ?string $key = null): self
    {
        Check::target($target);
        $rest = $exceptSelf ? '; except=self' : '';
        foreach ($target->except as $except) {
            foreach ($except->names as $name) {
                $rest .= '; except=' . self::parameter($except->kind, $name);
            }
        }
        if ($key !== null) {
            Check::name('the key of a message', $key);
            $rest .= '; key=' . self::parameter(null, $key);
        }
        if ($target->kind === 'all') {
            return $this->header('Longwire-To', "all$rest");
        }
        if ($target->names === []) {
            // A body for nobody must not go back to the client.
            throw new InvalidArgument('a reply goes to one session at least');
        }
        foreach ($target->names as $name) {
            $this->header('Longwire-To', self::parameter($target->kind, $name) . $rest);
        }
        return $this;
    }

    /** The body goes back to the client as well as to those of to(). */
    public function toSelf(): self
    {
        return $this->header('Longwire-To', 'self');
    }

    /**
     * The session is closed after the body.
     *
     * @param string $reason for the client; at most 123 bytes of it are sent
     */
    public function close(int $code = 1000, string $reason = ''): self
    {
        Check::closeCode($code);
        self::checkSpaces('a close reason in a header', $reason);
        return $this->header('Longwire-Close', rtrim("$code $reason"));
    }

    /** The body is one text frame. */
    public function text(string $body): self
    {
        return $this->body($body, Kind::Text);
    }

    /** The body is one binary frame. */
    public function binary(string $body): self
    {
        return $this->body($body, Kind::Binary);
    }

    /**
     * The body is one text frame of JSON.
     *
     * @throws \JsonException
     */
    public function json(mixed $value): self
    {
        $json = json_encode($value, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE);
        return $this->body($json, Kind::Text);
    }

    /** The body is one frame of the kind of the frame that is answered. */
    public function body(string $body, ?Kind $kind = null): self
    {
        $this->body = $body;
        $this->headers = array_values(array_filter($this->headers, static fn ($h) => $h[0] !== 'Longwire-Type'));
        return $kind === null ? $this : $this->header('Longwire-Type', $kind->word());
    }

    /** Each line that the script prints after send() becomes a frame as soon as it is flushed. */
    public function lines(): self
    {
        return $this->header('Longwire-Stream', 'lines');
    }

    /** Refuses the client, in the answer to a connect event: 4xx, which a WebSocket's handshake is answered with. */
    public function refuse(int $status = 403, string $body = ''): self
    {
        if ($status < 400 || $status > 499) {
            throw new InvalidArgument("a client is refused with a status of 400 to 499, not $status");
        }
        $this->status = $status;
        $this->body = $body;
        return $this;
    }

    public function status(): int
    {
        return $this->status ?? 200;
    }

    /**
     * The headers in their order, for a framework's answer. Some stand several times. Content-Length is among them, so
     * that what PHP prints behind the body (a warning, a newline) is not sent.
     *
     * @return list<array{string, string}> names and values
     */
    public function headers(): array
    {
        $length = $this->body === null ? [] : [['Content-Length', (string) strlen($this->body)]];
        return [...$this->headers, ...$length];
    }

    /** Sends status, headers and body by header() and echo. */
    public function send(): void
    {
        if ($this->status !== null) {
            http_response_code($this->status);
        }
        foreach ($this->headers() as [$name, $value]) {
            header("$name: $value", false);
        }
        echo $this->body;
    }

    /** @param string[] $channels */
    private function channels(string $header, array $channels): self
    {
        foreach ($channels as $channel) {
            Check::name('a channel', $channel);
            self::checkSpaces('a channel in a header', $channel);
            if (str_contains($channel, ',')) {
                throw new InvalidArgument("a comma in a header divides channels; a Router takes \"$channel\"");
            }
            $this->header($header, $channel);
        }
        return $this;
    }

    private static function parameter(?string $kind, string $name): string
    {
        self::checkSpaces('a name in a header', $name);
        if (str_contains($name, ';')) {
            throw new InvalidArgument("a semicolon in a header ends a name; a Router takes \"$name\"");
        }
        return $kind === null ? $name : "$kind:$name";
    }

    /** Longwire takes the spaces around a value away, and a line break would end the header. */
    private static function checkSpaces(string $what, string $value): void
    {
        if (trim($value, " \t\f") !== $value || strpbrk($value, "\r\n\0") !== false) {
            throw new InvalidArgument("$what has no line breaks, and no spaces at its ends");
        }
    }

    private function header(string $name, string $value): self
    {
        $this->headers[] = [$name, $value];
        return $this;
    }
}

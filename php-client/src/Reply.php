<?php

declare(strict_types=1);

namespace Longwire\Client;

use Longwire\Client\Internal\Check;

/**
 * A handler's answer: headers that act on its session, and a frame to the client or to other sessions.
 *
 *     (new Reply())->join('news')->set('room', 'kitchen')->text('welcome')->send();
 *
 * The headers act in the order of the calls, before the body is sent. With to() the body goes to that target instead of back to the
 * client.
 */
final class Reply
{
    /** @var list<array{string, string}> */
    private array $headers = [];
    private ?string $body = null;
    private ?int $status = null;

    /** Joins this session to channels. */
    public function join(string ...$channels): self
    {
        return $this->channels('Longwire-Join', $channels);
    }

    /** Removes this session from channels. */
    public function leave(string ...$channels): self
    {
        return $this->channels('Longwire-Leave', $channels);
    }

    /** Binds this session to a user; null removes the binding. */
    public function uid(?string $uid): self
    {
        if ($uid !== null) {
            Check::name('a uid', $uid);
            self::checkSpaces('a uid', $uid);
        }
        return $this->header('Longwire-Uid', (string) $uid);
    }

    /** Sets an attribute of this session. For a value with line breaks, or with spaces at its ends, use Router::set(). */
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

    /** Sets the id of the message, which a client of an event stream sends when it reconnects (Last-Event-ID). */
    public function id(string $id): self
    {
        Check::name('the id of a message', $id);
        self::checkSpaces('the id of a message', $id);
        return $this->header('Longwire-Id', $id);
    }

    /**
     * Sends the body to a target instead of back to the client. Several calls add several targets.
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
            // Without receivers the body would go back to the client.
            throw new InvalidArgument('the target of a reply needs at least one session');
        }
        foreach ($target->names as $name) {
            $this->header('Longwire-To', self::parameter($target->kind, $name) . $rest);
        }
        return $this;
    }

    /** Sends the body back to the client too, besides the targets of to(). */
    public function toSelf(): self
    {
        return $this->header('Longwire-To', 'self');
    }

    /**
     * Closes the session after the body.
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

    /** The body is one frame, of the same kind as the frame that is answered. */
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

    /** Refuses the client, in the answer to a connect event, with a 4xx status, which is also the answer to a WebSocket handshake. */
    public function refuse(int $status = 403, string $body = ''): self
    {
        if ($status < 400 || $status > 499) {
            throw new InvalidArgument("the status of a refusal must be 400 to 499, not $status");
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
     * The headers in order, for a framework's answer. Some occur several times. Content-Length is among them, so that output after the
     * body (a warning, a newline) is not sent.
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
                throw new InvalidArgument("a comma separates channels in a header; use a Router for \"$channel\"");
            }
            $this->header($header, $channel);
        }
        return $this;
    }

    private static function parameter(?string $kind, string $name): string
    {
        self::checkSpaces('a name in a header', $name);
        if (str_contains($name, ';')) {
            throw new InvalidArgument("a semicolon ends a name in a header; use a Router for \"$name\"");
        }
        return $kind === null ? $name : "$kind:$name";
    }

    /** Longwire trims spaces around a value, and a line break would end the header. */
    private static function checkSpaces(string $what, string $value): void
    {
        if (trim($value, " \t\f") !== $value || strpbrk($value, "\r\n\0") !== false) {
            throw new InvalidArgument("$what must have no line breaks, and no spaces at its ends");
        }
    }

    private function header(string $name, string $value): self
    {
        $this->headers[] = [$name, $value];
        return $this;
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client\Internal;

use Longwire\Client\ProtocolError;

/**
 * The client's side of the handshake, without a socket. A client with a secret goes on only if the server has proved that it knows it,
 * even if the server asks for no proof.
 *
 * ```text
 *   hello() ---> sent        challenged(frame) ---> a proof to send, or nothing        welcomed(frame) ---> commands
 * ```
 *
 * @internal
 */
final class Greeter
{
    private string $serverNonce = '';

    private function __construct(private readonly ?string $secret, private readonly string $nonce)
    {
    }

    public static function with(#[\SensitiveParameter] ?string $secret): self
    {
        return new self($secret === '' ? null : $secret, random_bytes(Wire::NONCE_BYTES));
    }

    public function hello(string $peer): string
    {
        $fields = Wire::field(Tag::VERSIONS, chr(Wire::VERSION)) . Wire::field(Tag::NONCE, $this->nonce)
            . Wire::field(Tag::PEER, substr($peer, 0, 64));
        return Wire::frame(Frame::HELLO, $fields);
    }

    /** Returns the bytes to send next; empty if no proof is asked for. */
    public function challenged(Frame $challenge): string
    {
        Wire::throwError($challenge);
        $auth = $challenge->fields[Tag::AUTH] ?? '';
        $this->serverNonce = $challenge->fields[Tag::NONCE] ?? '';
        $isWhole = strlen($this->serverNonce) === Wire::NONCE_BYTES && strlen($auth) === 1;
        if ($challenge->type !== Frame::CHALLENGE || !$isWhole) {
            throw new ProtocolError('the server is not a Longwire router');
        }
        if ($this->secret === null) {
            return $auth === "\0" ? '' : throw new ProtocolError('the router asks for a secret');
        }
        if ($auth !== "\1") {
            // An impostor would say that it needs no proof.
            throw new ProtocolError('the server does not ask for the secret, so it may not know it');
        }
        $proof = Wire::clientProof($this->secret, $this->nonce, $this->serverNonce);
        return Wire::frame(Frame::PROOF, Wire::field(Tag::PROOF, $proof));
    }

    public function welcomed(Frame $welcome): void
    {
        Wire::throwError($welcome);
        if ($welcome->type !== Frame::WELCOME) {
            throw new ProtocolError('the router sent another answer than a welcome');
        }
        if ($this->secret !== null) {
            $expected = Wire::serverProof($this->secret, $this->nonce, $this->serverNonce);
            if (!hash_equals($expected, $welcome->fields[Tag::PROOF] ?? '')) {
                throw new ProtocolError('the server does not know the secret');
            }
        }
    }
}

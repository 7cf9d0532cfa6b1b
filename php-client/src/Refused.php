<?php

declare(strict_types=1);

namespace Longwire\Client;

/** The router refused a request and has not done it. */
final class Refused extends \RuntimeException implements Exception
{
    /**
     * @param string $error     a word from the table of errors in docs/router-protocol.md: bad_field, not_text, ...
     * @param string $text      the reason, as readable text
     * @param bool   $mayBeDone whether other requests of the same batch had been done before
     */
    public function __construct(
        public readonly string $error,
        public readonly string $text,
        private readonly bool $mayBeDone = false,
    ) {
        parent::__construct("$error: $text");
    }

    public function mayBeDone(): bool
    {
        return $this->mayBeDone;
    }
}

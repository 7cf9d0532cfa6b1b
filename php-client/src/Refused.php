<?php

declare(strict_types=1);

namespace Longwire\Client;

/** The router refused a request; it has not done it. */
final class Refused extends \RuntimeException implements Exception
{
    /**
     * @param string $error a word from the table of errors in docs/router-protocol.md: bad_field, not_text, ...
     * @param string $text  what is wrong, for a person
     */
    public function __construct(public readonly string $error, public readonly string $text)
    {
        parent::__construct("$error: $text");
    }

    public function mayBeDone(): bool
    {
        return false;
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client\Testing;

use Longwire\Client\Kind;

/** A frame that a FakeSession received. */
final class FakeMessage
{
    public function __construct(
        public readonly string $body,
        public readonly Kind $kind,
        public readonly ?string $key = null,
    ) {
    }
}

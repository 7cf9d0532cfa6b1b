<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

/** What runs beside these tests. */
final class Environment
{
    /** A variable that must be there: tests that cannot be run have failed. */
    public static function get(string $name): string
    {
        $value = getenv($name);
        if ($value === false || $value === '') {
            throw new \RuntimeException("$name is not set; tests/it/router/php_client.rs says what these tests need");
        }
        return $value;
    }
}

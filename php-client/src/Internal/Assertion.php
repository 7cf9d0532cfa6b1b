<?php

declare(strict_types=1);

namespace Longwire\Client\Internal;

use PHPUnit\Framework\Assert;

/**
 * One assertion about a fake. PHPUnit counts it and reports its failure; without PHPUnit a failure is an AssertionError.
 *
 * @internal
 */
final class Assertion
{
    /**
     * @param \Closure(): string $failure says what was expected and what is there
     *
     * @throws \Throwable if it does not hold
     */
    public static function that(bool $holds, \Closure $failure): void
    {
        if (!class_exists(Assert::class)) {
            if (!$holds) {
                throw new \AssertionError($failure());
            }
        } elseif ($holds) {
            Assert::assertThat($holds, Assert::isTrue());
        } else {
            Assert::fail($failure());
        }
    }
}

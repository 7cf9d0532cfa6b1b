<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use Longwire\Client\RouterInterface;

/** api.php, by an adapter. */
final class ApiTest extends RouterTestCase
{
    use OnARunningNode;

    protected function makeRouter(): RouterInterface
    {
        return new ApiRouter(Environment::get('LONGWIRE_ROUTER'));
    }
}

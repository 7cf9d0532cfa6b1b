<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use Longwire\Client\Router;
use Longwire\Client\RouterInterface;

final class RouterTest extends RouterTestCase
{
    use OnARunningNode;

    protected function makeRouter(): RouterInterface
    {
        return new Router(Environment::get('LONGWIRE_ROUTER'), ioTimeout: 20.0);
    }
}

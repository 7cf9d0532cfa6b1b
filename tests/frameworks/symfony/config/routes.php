<?php

use App\Controller\LongwireController;
use App\Controller\ShopController;
use Symfony\Component\Routing\Loader\Configurator\RoutingConfigurator;

return static function (RoutingConfigurator $routes): void {
    $routes->add('home', '/')->controller([ShopController::class, 'home']);
    $routes->add('login', '/login')->controller([ShopController::class, 'login']);
    $routes->add('logout', '/logout');
    // Events from Longwire: a route for users with a login, and one for everybody.
    $routes->add('socket', '/ws')->controller([LongwireController::class, 'user'])->methods(['POST']);
    $routes->add('visitors', '/open')->controller([LongwireController::class, 'visitor'])->methods(['POST']);
};

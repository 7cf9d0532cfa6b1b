<?php

use Symfony\Component\DependencyInjection\Loader\Configurator\ContainerConfigurator;
use Symfony\Component\PasswordHasher\Hasher\PlaintextPasswordHasher;
use Symfony\Component\Security\Core\User\InMemoryUser;

return static function (ContainerConfigurator $container): void {
    $container->extension('framework', [
        'secret' => '%env(APP_SECRET)%',
        'http_method_override' => false,
        'session' => [
            'storage_factory_id' => 'session.storage.factory.native',
            // PHP's own files, with their lock, in a folder of the shop.
            'handler_id' => 'session.handler.native_file',
            'save_path' => '%kernel.project_dir%/var/sessions',
            'cookie_samesite' => 'lax',
        ],
        'csrf_protection' => true,
    ]);
    $container->extension('security', [
        'enable_authenticator_manager' => true,
        'password_hashers' => [InMemoryUser::class => ['algorithm' => 'plaintext']],
        'providers' => ['staff' => ['memory' => ['users' => [
            'ada' => ['password' => 'secret', 'roles' => ['ROLE_USER']],
        ]]]],
        'firewalls' => ['main' => [
            'lazy' => true,
            'form_login' => ['login_path' => '/login', 'check_path' => '/login', 'enable_csrf' => true],
            'logout' => ['path' => '/logout'],
        ]],
    ]);

    $services = $container->services()->defaults()->autowire()->autoconfigure();
    $services->load('App\\', '../src/')->exclude('../src/Kernel.php');
};

<?php

// Composer would make this file. Debian's packages of Symfony bring autoloaders of their own.

require_once 'Symfony/Bundle/FrameworkBundle/autoload.php';
require_once 'Symfony/Bundle/SecurityBundle/autoload.php';

spl_autoload_register(function (string $class): void {
    if (str_starts_with($class, 'App\\')) {
        require dirname(__DIR__).'/src/'.strtr(substr($class, 4), '\\', '/').'.php';
    }
});

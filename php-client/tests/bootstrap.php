<?php

declare(strict_types=1);

// What Composer would load: the package below src/, its tests below tests/, and the interfaces of PSR-3 and PSR-14, which Debian's
// packages php-psr-log and php-psr-event-dispatcher have.
if (is_file(dirname(__DIR__) . '/vendor/autoload.php')) {
    require dirname(__DIR__) . '/vendor/autoload.php';
    return;
}
spl_autoload_register(static function (string $class): void {
    $folders = [
        'Longwire\\Client\\Tests\\' => __DIR__,
        'Longwire\\Client\\' => dirname(__DIR__) . '/src',
        'Psr\\' => '/usr/share/php/Psr',
    ];
    foreach ($folders as $prefix => $folder) {
        $file = $folder . '/' . strtr(substr($class, strlen($prefix)), '\\', '/') . '.php';
        if (str_starts_with($class, $prefix) && is_file($file)) {
            require $file;
            return;
        }
    }
});

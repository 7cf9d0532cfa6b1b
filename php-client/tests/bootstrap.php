<?php

declare(strict_types=1);

// What Composer would load: the package below src/, its tests below tests/. Nothing has to be installed for them.
spl_autoload_register(static function (string $class): void {
    $folders = ['Longwire\\Client\\Tests\\' => __DIR__, 'Longwire\\Client\\' => dirname(__DIR__) . '/src'];
    foreach ($folders as $prefix => $folder) {
        $file = $folder . '/' . strtr(substr($class, strlen($prefix)), '\\', '/') . '.php';
        if (str_starts_with($class, $prefix) && is_file($file)) {
            require $file;
            return;
        }
    }
});

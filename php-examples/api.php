<?php
// The examples use include 'api.php', as your scripts would with a copy of that file next to them.
require_once __DIR__ . '/../php-client/api.php';

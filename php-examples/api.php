<?php
// The examples say include 'api.php', as a script of yours would with a copy of that file beside it.
require_once __DIR__ . '/../php-client/api.php';

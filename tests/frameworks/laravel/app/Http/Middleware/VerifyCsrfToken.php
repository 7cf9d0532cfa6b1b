<?php

namespace App\Http\Middleware;

use Illuminate\Foundation\Http\Middleware\VerifyCsrfToken as Middleware;

class VerifyCsrfToken extends Middleware
{
    /** A frame is a POST without a token. The middleware `longwire` keeps everybody else from this route. */
    protected $except = ['ws'];
}

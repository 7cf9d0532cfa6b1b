<?php

namespace App\Providers;

use App\Http\Middleware\OnlyLongwire;
use Illuminate\Contracts\Http\Kernel;
use Illuminate\Foundation\Support\Providers\RouteServiceProvider as ServiceProvider;
use Illuminate\Support\Facades\Route;

class RouteServiceProvider extends ServiceProvider
{
    public function boot()
    {
        // Before `auth`, which Laravel would else put in front of it, wherever it stands in a route.
        $this->app->make(Kernel::class)->prependToMiddlewarePriority(OnlyLongwire::class);

        $this->routes(fn () => Route::middleware('web')->group(base_path('routes/web.php')));
    }
}

<?php

namespace App\Providers;

use App\Staff;
use Illuminate\Foundation\Support\Providers\AuthServiceProvider as ServiceProvider;
use Illuminate\Support\Facades\Auth;

class AuthServiceProvider extends ServiceProvider
{
    public function boot()
    {
        Auth::provider('staff', fn ($app, array $config) => new Staff($config['users']));
    }
}

<?php

use App\Http\Controllers\LongwireController;
use App\Http\Controllers\ShopController;
use App\Http\Middleware\VerifyCsrfToken;
use Illuminate\Support\Facades\Route;

Route::get('/login', [ShopController::class, 'form'])->name('login');
Route::post('/login', [ShopController::class, 'login']);
Route::post('/logout', [ShopController::class, 'logout']);
Route::middleware('auth')->match(['get', 'post'], '/', [ShopController::class, 'home'])->name('home');

// Events from Longwire: a route for users with a login, and one for everybody.
Route::middleware(['longwire', 'auth'])->post('/ws', LongwireController::class);
Route::middleware('longwire')->post('/open', LongwireController::class)->withoutMiddleware(VerifyCsrfToken::class);
// One event of a user's session at a time.
Route::middleware(['longwire', 'auth'])->post('/exact', LongwireController::class)->block(10, 10)
    ->withoutMiddleware(VerifyCsrfToken::class);
// Two routes as a shop writes them for pages: one without JSON errors, one without the exemption from CSRF tokens.
Route::middleware('auth')->post('/members', LongwireController::class)->withoutMiddleware(VerifyCsrfToken::class);
Route::post('/guarded', LongwireController::class);

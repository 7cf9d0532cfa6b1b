<?php

namespace App\Http\Controllers;

use Illuminate\Http\Request;
use Illuminate\Routing\Controller;
use Illuminate\Support\Facades\Auth;

/** The pages of the shop. */
class ShopController extends Controller
{
    public function home(Request $request)
    {
        $session = $request->session();
        if ($request->isMethod('POST')) {
            $session->increment('n');
        }

        return "{$request->user()->name} n={$session->get('n', 0)}";
    }

    public function form()
    {
        return '<form method="post"><input name="name"><input name="password" type="password">'
            .csrf_field().'<button>Log in</button></form>';
    }

    public function login(Request $request)
    {
        if (! Auth::attempt($request->only('name', 'password'))) {
            return redirect('/login');
        }
        $request->session()->regenerate();

        return redirect()->intended('/');
    }

    public function logout(Request $request)
    {
        Auth::logout();
        $request->session()->invalidate();

        return redirect('/login');
    }
}

<?php

namespace App;

use Illuminate\Auth\GenericUser;
use Illuminate\Contracts\Auth\Authenticatable;
use Illuminate\Contracts\Auth\UserProvider;

/** Users of the configuration, where a larger shop has a table of them. */
class Staff implements UserProvider
{
    /** @param  array<string, string>  $users  Passwords by name. */
    public function __construct(private array $users)
    {
    }

    public function retrieveById($identifier)
    {
        $password = $this->users[$identifier] ?? null;

        return $password === null ? null : new GenericUser([
            'id' => $identifier, 'name' => $identifier, 'password' => $password, 'remember_token' => null,
        ]);
    }

    public function retrieveByToken($identifier, $token)
    {
        return null;
    }

    public function updateRememberToken(Authenticatable $user, $token)
    {
    }

    public function retrieveByCredentials(array $credentials)
    {
        return $this->retrieveById($credentials['name'] ?? '');
    }

    public function validateCredentials(Authenticatable $user, array $credentials)
    {
        return hash_equals($user->getAuthPassword(), (string) ($credentials['password'] ?? ''));
    }
}

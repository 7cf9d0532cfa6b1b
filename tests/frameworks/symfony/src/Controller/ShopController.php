<?php

namespace App\Controller;

use Symfony\Bundle\FrameworkBundle\Controller\AbstractController;
use Symfony\Component\HttpFoundation\Request;
use Symfony\Component\HttpFoundation\Response;
use Symfony\Component\Security\Csrf\CsrfTokenManagerInterface;

/** The pages of the shop. */
class ShopController extends AbstractController
{
    public function home(Request $request): Response
    {
        $this->denyAccessUnlessGranted('ROLE_USER');
        $session = $request->getSession();
        if ($request->isMethod('POST')) {
            $session->set('n', $session->get('n', 0) + 1);
        }

        return new Response("{$this->getUser()->getUserIdentifier()} n={$session->get('n', 0)}");
    }

    public function login(CsrfTokenManagerInterface $tokens): Response
    {
        $token = $tokens->getToken('authenticate');

        return new Response('<form method="post"><input name="_username"><input name="_password" type="password">'
            ."<input name=\"_csrf_token\" value=\"$token\"><button>Log in</button></form>");
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use Longwire\Client\ConnectFailed;
use Longwire\Client\Refused;
use Longwire\Client\Router;
use Longwire\Client\Target;
use PHPUnit\Framework\TestCase;

require_once dirname(__DIR__) . '/api.php';

/** A router that asks for a secret. */
final class SecretTest extends TestCase
{
    use ErrorLog;

    private string $address;
    private string $secret;

    protected function setUp(): void
    {
        $this->address = Environment::get('LONGWIRE_ROUTER_WITH_SECRET');
        $this->secret = Environment::get('LONGWIRE_SECRET');
    }

    public function testWhoKnowsTheSecretIsServed(): void
    {
        $router = new Router($this->address, secret: $this->secret);
        $this->assertSame(0, $router->send(Target::all(), 'x')->reached);
        $this->assertSame(0, $router->node()['sessions']);

        $api = new \RouterClient($this->address, 0, $this->secret);
        $this->assertSame(0, $api->sendAllMsg('x')['reached']);
    }

    public function testWhoDoesNotIsToldSo(): void
    {
        foreach (["{$this->secret}r" => 'bad_proof: ', '' => 'the router asks for a secret'] as $wrong => $expected) {
            try {
                (new Router($this->address, secret: $wrong))->node();
                $this->fail('it was served');
            } catch (ConnectFailed $error) {
                $this->assertStringContainsString("$this->address: $expected", $error->getMessage());
                $this->assertSame($wrong !== '', $error->getPrevious() instanceof Refused);
            }
            $api = new \RouterClient($this->address, 0, $wrong);
            $this->assertFalse($api->node());
            $this->assertStringContainsString("$this->address: $expected", $api->lastError());
        }
        $this->assertCount(2, $this->logLines());
    }

    public function testSecretShowsInNoDump(): void
    {
        $router = new Router($this->address, secret: $this->secret);
        $router->node();
        $this->assertStringNotContainsString($this->secret, print_r($router, true));
        try {
            (new Router('127.0.0.1:1', secret: $this->secret))->node();
            $this->fail('something listens there');
        } catch (ConnectFailed $error) {
            $this->assertStringNotContainsString($this->secret, (string) $error);
        }
    }

    public function testRouterThatAsksForNoSecretIsNotTakenForOneThatKnowsIt(): void
    {
        // An impostor could listen there and say that it needs no proof.
        $open = Environment::get('LONGWIRE_ROUTER');
        try {
            (new Router($open, secret: $this->secret))->node();
            $this->fail('it was asked');
        } catch (ConnectFailed $error) {
            $this->assertStringContainsString('does not ask for the secret', $error->getMessage());
        }
        $api = new \RouterClient($open, 0, $this->secret);
        $this->assertFalse($api->node());
        $this->assertStringContainsString('does not ask for the secret', $api->lastError());
        $this->assertCount(1, $this->logLines());
    }
}

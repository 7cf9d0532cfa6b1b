<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use PHPUnit\Framework\TestCase;

/** Every example of README.md, run. */
final class ReadmeTest extends TestCase
{
    private string $file = '';

    protected function tearDown(): void
    {
        unlink($this->file);
    }

    /** The example below a heading, as a script. */
    private function example(string $heading): string
    {
        $readme = file_get_contents(dirname(__DIR__) . '/README.md');
        $this->assertSame(1, preg_match("/^## $heading\n.*?^```php\n(.*?)^```\n/ms", $readme, $parts), $heading);
        $replaced = [
            "'vendor/autoload.php'" => var_export(__DIR__ . '/bootstrap.php', true),
            '127.0.0.1:9010' => Environment::get('LONGWIRE_ROUTER'),
        ];
        $this->file = tempnam(sys_get_temp_dir(), 'longwire-readme-') . '.php';
        unlink(substr($this->file, 0, -4));
        file_put_contents($this->file, "<?php\n" . strtr($parts[1], $replaced));
        // For the workers of php-fpm, whoever runs them.
        chmod($this->file, 0644);
        return $this->file;
    }

    /** @return list<string> what a script prints, errors included */
    private static function printed(string $file): array
    {
        $options = '-d zend.assertions=1 -d error_log= -d display_errors=stderr';
        exec(PHP_BINARY . " $options " . escapeshellarg($file) . ' 2>&1', $lines);
        return $lines;
    }

    public function testSending(): void
    {
        $client = new Client();
        $client->ask(['reply' => [['uid', ['42']], ['json', ['ok']]]]);
        $this->assertSame(['0 reached, 0 queued, 0 read too slowly'], self::printed($this->example('Sending')));
        $this->assertSame(['to all tabs of a user', 'to the others', '42 is here'], $client->frames(3));
        $client->close();
    }

    public function testWhenTheRouterIsAway(): void
    {
        $lines = self::printed($this->example('When the router is away'));
        $this->assertCount(1, $lines, implode("\n", $lines));
        $this->assertMatchesRegularExpression('/Connection refused; \S+ is used instead$/', $lines[0]);
        $script = file_get_contents($this->file);
        file_put_contents($this->file, str_replace(Environment::get('LONGWIRE_ROUTER'), '127.0.0.1:1', $script));
        $lines = self::printed($this->file);
        $this->assertStringContainsString('longwire/client: no router: ', $lines[0]);
        $this->assertSame('nobody was told', end($lines));
    }

    public function testEventsOfWhatComesBack(): void
    {
        $this->assertSame(['forget AAAAAAAAAAAAAAAA'], self::printed($this->example('Events of what comes back')));
    }

    public function testInAHandler(): void
    {
        $client = new Client();
        $answer = $client->ask(['run' => $this->example('In a handler'), 'room' => 'kitchen', 'text' => 'hello']);
        $this->assertSame(['from' => $client->id, 'text' => 'hello'], $answer);
        $client->close();
    }

    public function testInTests(): void
    {
        $lines = self::printed($this->example('In tests'));
        $this->assertCount(1, $lines, implode("\n", $lines));
        $this->assertStringContainsString('longwire/client: no router', $lines[0]);
    }
}

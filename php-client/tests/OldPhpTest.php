<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

use PHPUnit\Framework\TestCase;

/**
 * Checks that api.php runs on PHP 7.2. Debian has no such PHP any more, so this test looks at the tokens: it finds syntax of 7.3 and later,
 * and functions and classes that 7.2 does not have.
 */
final class OldPhpTest extends TestCase
{
    private const NEW_TOKENS = [
        'T_FN', 'T_MATCH', 'T_ENUM', 'T_READONLY', 'T_ATTRIBUTE', 'T_COALESCE_EQUAL', 'T_NULLSAFE_OBJECT_OPERATOR',
        // These may be of any version, and need none of what they are for here.
        'T_ELLIPSIS', 'T_START_HEREDOC', 'T_NAME_QUALIFIED', 'T_NAME_FULLY_QUALIFIED',
    ];

    public function testApiPhp(): void
    {
        $code = file_get_contents(dirname(__DIR__) . '/api.php');
        $this->assertSame([], self::complaints($code));
        $this->assertStringStartsWith("<?php\n", $code);
        $this->assertStringNotContainsString('?>', $code, 'nothing behind the code is printed');
        exec(PHP_BINARY . ' -l ' . escapeshellarg(dirname(__DIR__) . '/api.php'), $output, $status);
        $this->assertSame(0, $status, implode("\n", $output));
    }

    /** @return array<string, array{string, string}> */
    public function newSyntax(): array
    {
        return [
            'arrow function' => ['$f = fn($x) => $x;', 'T_FN'],
            'match' => ['$x = match ($y) { 1 => 2 };', 'T_MATCH'],
            'enum' => ['enum A { case B; }', 'T_ENUM'],
            'readonly' => ['class A { public readonly int $b; }', 'T_READONLY'],
            'attribute' => ['#[A] class B {}', 'T_ATTRIBUTE'],
            'null coalescing assignment' => ['$x ??= 1;', 'T_COALESCE_EQUAL'],
            'nullsafe' => ['$x?->y();', 'T_NULLSAFE_OBJECT_OPERATOR'],
            'spread in an array' => ['$x = [...$y];', 'T_ELLIPSIS'],
            'first-class callable' => ['$x = strlen(...);', 'T_ELLIPSIS'],
            'typed property' => ['class A { private int $b = 1; }', 'typed property'],
            'typed property that may be null' => ['class A { public ?A $b; }', 'typed property'],
            'typed static property' => ['class A { private static array $b; }', 'typed property'],
            'promoted parameter' => ['class A { function __construct(private $b) {} }', 'promoted parameter'],
            'comma behind the last argument' => ['f($x, );', 'comma'],
            'comma behind the last parameter' => ['function f($x,) {}', 'comma'],
            'named argument' => ['f(x: 1);', 'named argument'],
            'second named argument' => ['f(1, x: 1);', 'named argument'],
            'union type' => ['function f(int|string $x) {}', 'union type'],
            'union type of an answer' => ['function f(): int|string {}', 'union type'],
            'throw as an expression' => ['$x = $y ?: throw new A();', 'throw'],
            'catch without a variable' => ['try {} catch (A) {}', 'catch'],
            'static return type' => ['function f(): static {}', 'return type'],
            'mixed' => ['function f(): mixed {}', 'return type'],
            'never' => ['function f(): never {}', 'return type'],
            'underscore in a number' => ['$x = 1_000;', 'number'],
            'octal number' => ['$x = 0o17;', 'number'],
            'class of an object' => ['$x = $y::class;', '::class'],
            'reference in a list' => ['[&$a] = $b;', 'reference'],
            'function of 7.3' => ['$x = array_key_first($y);', 'array_key_first'],
            'function of 8.0' => ['$x = str_contains($y, $z);', 'str_contains'],
            'clock of 7.3' => ['$x = hrtime(true);', 'hrtime'],
            'constant of 7.3' => ['$x = JSON_THROW_ON_ERROR;', 'JSON_THROW_ON_ERROR'],
        ];
    }

    /** @dataProvider newSyntax */
    public function testNewSyntaxIsSeen(string $code, string $complaint): void
    {
        $complaints = self::complaints("<?php\n$code");
        $this->assertNotSame([], $complaints);
        $this->assertStringContainsString($complaint, implode("\n", $complaints));
    }

    public function testOldSyntaxIsNot(): void
    {
        $old = '<?php class A { const B = 1; private $c = array(1, 2,); public static $d;
            private static function e(array &$f, ?A $g = null): ?int {
                switch ($f) { case self::B: default: return $h ? $i : $j; } foreach ($f as $k => &$l) {}
                try { throw new A(); } catch (A | B $m) { } list($n, $o) = $f; [$p] = $f;
                return $q ?? A::class | static::B; } }
            label: goto label; $r = array("a" => 1, "b" => 2,); $s = [1, [2],];';
        $this->assertSame([], self::complaints($old));
    }

    /** @return list<string> */
    private static function complaints(string $code): array
    {
        $newNames = [
            'array_key_first', 'array_key_last', 'is_countable', 'hrtime', 'mb_str_split', 'password_algos', 'fsync',
            'str_contains', 'str_starts_with', 'str_ends_with', 'get_debug_type', 'fdiv', 'get_resource_id',
            'array_is_list', 'array_find', 'json_validate', 'str_increment', 'JSON_THROW_ON_ERROR', 'JsonException',
            'WeakMap', 'WeakReference', 'Stringable', 'ValueError', 'UnhandledMatchError',
        ];
        $all = \PhpToken::tokenize($code);
        $tokens = array_values(array_filter($all, static fn (\PhpToken $token): bool => !$token->isIgnorable()));
        $complaints = [];
        foreach ($tokens as $i => $token) {
            $text = static fn (int $offset): string => $tokens[$i + $offset]->text ?? '';
            $is = static fn (int $offset, int|string ...$kinds): bool => isset($tokens[$i + $offset])
                && $tokens[$i + $offset]->is($kinds);
            $visibility = [T_PUBLIC, T_PROTECTED, T_PRIVATE];
            $type = [T_STRING, T_ARRAY, T_CALLABLE, '?', T_NAME_QUALIFIED, T_NAME_FULLY_QUALIFIED];
            $complaints[] = match (true) {
                in_array($token->getTokenName(), self::NEW_TOKENS, true) => $token->getTokenName(),
                $token->is([...$visibility, T_STATIC, T_VAR]) && $is(1, ...$type) && !$is(-1, ':', T_NEW)
                    => 'typed property',
                $token->is($visibility) && $is(-1, '(', ',') => 'promoted parameter',
                // array(1, 2,) was always allowed, so only calls and functions count.
                $token->text === ',' && $text(1) === ')' && !self::isInArray($tokens, $i) => 'comma before )',
                $token->is(T_STRING) && $text(1) === ':' && $is(-1, '(', ',') => 'named argument',
                $token->text === '|' && $is(-1, ...$type) && $is(1, ...$type) && !self::isInCatch($tokens, $i)
                    && !$is(-2, T_DOUBLE_COLON) && $text(2) !== '::' => 'union type',
                $token->is(T_THROW) && (!$is(-1, ';', '{', '}', ')', ':') || $is(-2, '?'))
                    => 'throw as an expression',
                $token->is(T_CATCH) && self::lacksVariable($tokens, $i) => 'catch without a variable',
                $token->text === ':' && $text(-1) === ')' && in_array($text(1), ['static', 'mixed', 'never'], true)
                    => 'return type ' . $text(1),
                $token->is([T_LNUMBER, T_DNUMBER]) && preg_match('/_|^0o/i', $token->text) === 1 => 'number',
                $token->is(T_CLASS) && $is(-1, T_DOUBLE_COLON) && $is(-2, T_VARIABLE, ')', ']')
                    => '::class of an object',
                $token->text === '&' && $text(-1) === '[' => 'reference in a list',
                $token->is(T_STRING) && in_array($token->text, $newNames, true) => $token->text,
                default => null,
            };
        }
        return array_values(array_filter($complaints));
    }

    /** @param list<\PhpToken> $tokens */
    private static function isInArray(array $tokens, int $at): bool
    {
        $opening = self::opening($tokens, $at);
        return $opening > 0 && $tokens[$opening - 1]->is([T_ARRAY, T_LIST]);
    }

    /** @param list<\PhpToken> $tokens */
    private static function isInCatch(array $tokens, int $at): bool
    {
        $opening = self::opening($tokens, $at);
        return $opening > 0 && $tokens[$opening - 1]->is(T_CATCH);
    }

    /** The position of the enclosing opening parenthesis; -1 if there is none. */
    private static function opening(array $tokens, int $at): int
    {
        for ($depth = 0; --$at >= 0;) {
            $depth += ['(' => -1, ')' => 1][$tokens[$at]->text] ?? 0;
            if ($depth < 0) {
                return $at;
            }
        }
        return -1;
    }

    /** @param list<\PhpToken> $tokens */
    private static function lacksVariable(array $tokens, int $at): bool
    {
        while ($tokens[++$at]->text !== ')') {
            if ($tokens[$at]->is(T_VARIABLE)) {
                return false;
            }
        }
        return true;
    }
}

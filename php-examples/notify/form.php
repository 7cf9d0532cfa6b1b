<?php

// An ordinary page with ordinary forms: sign in, send a note to a user, sign out. It works without JavaScript.

declare(strict_types=1);

require_once __DIR__ . '/visitor.php';
require_once __DIR__ . '/../../php-client/api.php';

const MAX_CHARACTERS = 500;

session_start(SESSION_OPTIONS);
// The CSRF token: only our own pages know it, so a form that has it is ours. SameSite alone would admit other ports of this host.
$_SESSION['token'] ??= bin2hex(random_bytes(16));

if ($_SERVER['REQUEST_METHOD'] !== 'POST') {
    $news = $_SESSION['news'] ?? [];
    unset($_SESSION['news']);
    page($news);
} elseif (!hash_equals($_SESSION['token'], posted('token'))) {
    http_response_code(403);
    page(['problem' => 'That form was too old, or not from here. Nothing was done; this one is new.']);
} elseif (posted('do') === 'enter') {
    enter(posted('name'));
} elseif (posted('do') === 'leave') {
    leave();
} elseif (posted('do') === 'send' && isset($_SESSION['name'])) {
    send($_SESSION['name'], posted('to'), posted('text'));
} else {
    http_response_code(422);
    page(['problem' => 'Sign in first.']);
}

/** A real shop would ask for a password here. */
function enter(string $name): void
{
    if (!is_name($name)) {
        http_response_code(422);
        page(['problem' => 'A name has 1 to 24 letters and digits.', 'name' => $name]);
        return;
    }
    session_regenerate_id(true); // a new id, so that no attacker can have planted the cookie of a signed-in user
    $_SESSION = ['name' => $name];
    done([]);
}

function leave(): void
{
    $name = $_SESSION['name'] ?? null;
    session_regenerate_id(true);
    $_SESSION = [];
    session_write_close();
    if ($name !== null) {
        // Open pages reconnect at once, and the handler checks again who the visitor is.
        router()->closeSession('uid:' . uid($name), 4000, 'look again');
    }
    done([]);
}

function send(string $name, string $to, string $text): void
{
    $text = str_replace("\r\n", "\n", $text);
    $kept = ['to' => $to, 'text' => $text];
    if (!is_name($to)) {
        $problem = 'Say to whom: a name has 1 to 24 letters and digits.';
    } elseif (!preg_match('/^.{1,' . MAX_CHARACTERS . '}$/usD', $text)) {
        $problem = sprintf('A note has 1 to %d characters.', MAX_CHARACTERS);
    } else {
        $note = ['is' => 'note', 'from' => $name, 'text' => $text, 'at' => time()];
        $note = json_encode($note, JSON_UNESCAPED_UNICODE | JSON_THROW_ON_ERROR);
        $receipt = router()->sendToUid(uid($to), $note, ['type' => 'text']);
        if ($receipt !== false) {
            $told = told($receipt, $to);
            done($told + (isset($told['good']) ? ['to' => $to] : $kept));
            return;
        }
        // RouterClient has written the reason to the error log. It has waited at most for its timeouts.
        http_response_code(503);
        page(['problem' => 'Nobody can be reached at the moment. Try again later.'] + $kept);
        return;
    }
    http_response_code(422);
    page(['problem' => $problem] + $kept);
}

/** The receipt as a sentence. */
function told(array $receipt, string $to): array
{
    $pages = fn (int $count): string => $count === 1 ? '1 open page' : "$count open pages";
    if ($receipt['reached'] > 0) {
        return ['good' => "$to has it, on {$pages($receipt['reached'])}."];
    }
    if ($receipt['queued'] > 0) {
        return ['good' => "It is on its way to {$pages($receipt['queued'])} of $to."];
    }
    if ($receipt['refused'] + array_sum($receipt['dropped']) > 0) {
        return ['problem' => "$to could not take it."];
    }
    return ['absent' => "$to is not here, so nobody got it."];
}

function router(): RouterClient
{
    return new RouterClient(getenv('LONGWIRE_ROUTER') ?: '127.0.0.1:9010', 9010, getenv('LONGWIRE_SECRET') ?: null);
}

function posted(string $field): string
{
    return is_string($_POST[$field] ?? null) ? trim($_POST[$field]) : '';
}

/** The name is used in a header, so it must have no comma and no line break. */
function is_name(string $name): bool
{
    return preg_match('/^[\p{L}\p{N}][\p{L}\p{M}\p{N} ._\'-]{0,23}$/uD', $name) === 1;
}

/** Answers a form that did something with a redirect to another page, so that reloading does not repeat it. */
function done(array $news): void
{
    if ($news) {
        $_SESSION['news'] = $news;
    }
    header('Location: form.php', true, 303);
}

function e(string $text): string
{
    return htmlspecialchars($text, ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8');
}

/** @param array{good?: string, absent?: string, problem?: string, name?: string, to?: string, text?: string} $say */
function page(array $say): void
{
    header("Content-Security-Policy: default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
        . "base-uri 'none'; frame-ancestors 'none'");
    header('Content-Type: text/html; charset=utf-8');
    $me = $_SESSION['name'] ?? null;
    $token = '<input type="hidden" name="token" value="' . e($_SESSION['token']) . '">';
    ?>
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title><?= $me === null ? 'Sign in' : 'Send a note' ?></title>
<link rel="icon" href="icon.svg">
<link rel="stylesheet" href="notify.css">
</head>
<body>
<header>
  <img src="icon.svg" alt="" width="36" height="36">
  <nav aria-label="Pages">
    <a href="<?= e(other_side('NOTIFY_INBOX', 8080, '/')) ?>">Inbox</a>
    <a href="form.php" aria-current="page"><?= $me === null ? 'Sign in' : 'Send' ?></a>
  </nav>
<?php if ($me !== null): ?>
  <form method="post" action="form.php" class="out">
    <?= $token ?>

    <button name="do" value="leave">Sign out</button>
  </form>
<?php endif ?>
</header>

<main>
<?php foreach (['good' => 'status', 'absent' => 'status', 'problem' => 'alert'] as $kind => $role): ?>
<?php if (isset($say[$kind])): ?>
  <p class="news <?= $kind ?>" role="<?= $role ?>"><?= e($say[$kind]) ?></p>
<?php endif ?>
<?php endforeach ?>
  <form method="post" action="form.php" class="card">
    <?= $token ?>

<?php if ($me === null): ?>
    <h1>Sign in</h1>
    <p class="hint">Any name will do. Notes to it appear in your inbox.</p>
    <label for="name">Your name</label>
    <input id="name" name="name" maxlength="24" required autofocus value="<?= e($say['name'] ?? '') ?>"
      autocomplete="off" spellcheck="false" autocapitalize="words">
    <button name="do" value="enter" class="strong">Sign in</button>
<?php else: ?>
    <h1>Send a note</h1>
    <p class="hint">You are <strong><?= e($me) ?></strong>. A note to yourself works as well.</p>
    <label for="to">To</label>
    <input id="to" name="to" maxlength="24" required value="<?= e($say['to'] ?? '') ?>"
      autocomplete="off" spellcheck="false" autocapitalize="words">
    <label for="text">Note</label>
    <textarea id="text" name="text" rows="3" maxlength="<?= MAX_CHARACTERS ?>" required><?php
        echo e($say['text'] ?? '') ?></textarea>
    <button name="do" value="send" class="strong">Send</button>
<?php endif ?>
  </form>
</main>
</body>
</html>
<?php
}

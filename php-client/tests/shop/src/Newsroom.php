<?php

declare(strict_types=1);

namespace Shop;

use Longwire\Client\RouterInterface;
use Longwire\Client\Target;

/** What a shop would write: it tells its readers of an article, and its author of the readers. */
final class Newsroom
{
    public function __construct(private readonly RouterInterface $router)
    {
    }

    public function announce(string $title, string $author): void
    {
        $receipt = $this->router->publish('news', json_encode(['title' => $title], JSON_THROW_ON_ERROR));
        $this->router->send(Target::session($author), "{$receipt->delivered()} readers");
    }
}

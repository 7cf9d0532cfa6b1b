<?php

namespace App\EventListener;

use Symfony\Component\EventDispatcher\EventSubscriberInterface;
use Symfony\Component\HttpKernel\Event\TerminateEvent;
use Symfony\Component\HttpKernel\KernelEvents;

/** Work that no client waits for: a mail, a report, a call to somebody slow. */
class AfterResponse implements EventSubscriberInterface
{
    /** The work lasts until there is a file of this name with `-go` behind it. */
    public ?string $work = null;

    public static function getSubscribedEvents(): array
    {
        return [KernelEvents::TERMINATE => 'work'];
    }

    public function work(TerminateEvent $event): void
    {
        if (null === $this->work) {
            return;
        }
        touch("$this->work-begun");
        self::until("$this->work-go");
        // Nobody may ever read this.
        @header('Longwire-Close: 4000 printed too late');
        echo 'printed too late';
        touch("$this->work-done");
    }

    public static function until(string $file): void
    {
        for ($i = 0; $i < 4000 && !file_exists($file); ++$i) {
            usleep(5000);
            clearstatcache();
        }
    }
}

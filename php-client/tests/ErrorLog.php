<?php

declare(strict_types=1);

namespace Longwire\Client\Tests;

/** PHP's error log goes to a file of the test. */
trait ErrorLog
{
    private string $errorLog = '';

    /** @before */
    public function redirectErrorLog(): void
    {
        $this->errorLog = (string) tempnam(sys_get_temp_dir(), 'longwire-log-');
        ini_set('error_log', $this->errorLog);
    }

    /** @after */
    public function restoreErrorLog(): void
    {
        ini_restore('error_log');
        unlink($this->errorLog);
    }

    /** @return list<string> */
    protected function logLines(): array
    {
        return file($this->errorLog, FILE_IGNORE_NEW_LINES);
    }

    protected function forgetLog(): void
    {
        file_put_contents($this->errorLog, '');
    }
}

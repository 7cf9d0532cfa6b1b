<?php

declare(strict_types=1);

namespace Longwire\Client;

use Longwire\Client\Internal\Address;
use Longwire\Client\Internal\Connection;
use Longwire\Client\Internal\Frame;
use Longwire\Client\Internal\Greeter;
use Longwire\Client\Internal\Log;
use Longwire\Client\Internal\Verbs;
use Longwire\Client\Internal\Wire;

/**
 * A running Longwire, asked through its router port (docs/router-protocol.md).
 *
 * ```text
 *   first request           connection + greeting, one address after the other
 *        v
 *   connected <-----------. answers to all requests came
 *        |  more requests |
 *        v                |
 *   under way ------------'
 *        |  too late, closed, not understood
 *        v
 *   not connected           the next request connects again
 * ```
 *
 * A request takes at most connectTimeout for each address and then ioTimeout for all that it sends and reads, however
 * slowly it comes, and also when it is sent a second time. A command is sent a second time only if the router cannot have done it: the connection was there
 * from earlier, the router had closed it, and not even one whole command was written. Queries are asked again.
 */
final class Router implements RouterInterface
{
    use Verbs;

    private const MAX_NUMBER = 0x7FFFFFFF;

    /** @var list<string> */
    private readonly array $urls;
    private readonly \Closure $log;
    private ?Connection $connection = null;
    private int $number;

    /**
     * @param string|list<string>  $addresses      tcp://host:port, host:port or unix:/path; of several, the first that
     *                                             takes the connection. $_SERVER['LONGWIRE_ROUTER'] is one
     * @param float                $connectTimeout seconds to connect to one address and be greeted there. Names are
     *                                             looked up by the system, which may take longer
     * @param float                $ioTimeout      seconds to send requests and read all answers
     * @param string|null          $secret         what [router] secret says; nothing is sent to a server that does not prove
     *                                             to know it
     * @param bool                 $persistent     the connection outlives the page, in this PHP worker
     * @param callable|object|null $log            for warnings: a callable that takes a string, or a PSR-3 logger;
     *                                             error_log() when absent
     * @param string               $name           who this is, in Longwire's log; at most 64 bytes
     *
     * @throws InvalidArgument
     */
    public function __construct(
        string|array $addresses = 'tcp://127.0.0.1:9010',
        private readonly float $connectTimeout = 1.0,
        private readonly float $ioTimeout = 2.0,
        #[\SensitiveParameter] private readonly ?string $secret = null,
        private readonly bool $persistent = false,
        callable|object|null $log = null,
        private readonly string $name = 'longwire/client',
    ) {
        $this->urls = array_map(Address::url(...), array_values((array) $addresses));
        if ($this->urls === []) {
            throw new InvalidArgument('a router has at least one address');
        }
        $this->log = Log::of($log);
        // On a persistent connection an answer to an earlier page must not pass for one to this.
        $this->number = random_int(0, self::MAX_NUMBER);
    }

    /** Ends the connection, a persistent one too; the next request makes another. */
    public function disconnect(): void
    {
        $this->connection?->close();
        $this->connection = null;
    }

    /** Without the secret, for logs and error pages. */
    public function __debugInfo(): array
    {
        return ['addresses' => $this->urls, 'isConnected' => $this->connection !== null];
    }

    protected function commands(array $requests): array
    {
        $parts = array_map(Wire::parts(...), $requests);
        $answers = $this->ask(array_merge(...$parts));
        $receipts = [];
        foreach ($parts as $of) {
            try {
                $receipt = new Receipt();
                foreach (array_splice($answers, 0, count($of)) as $answer) {
                    $receipt = $receipt->plus(Wire::receipt($answer));
                }
                $receipts[] = $receipt;
            } catch (Refused $refused) {
                $receipts[] = $refused;
            }
        }
        return $receipts;
    }

    protected function query(Request $request): ?string
    {
        return Wire::result($this->ask([$request])[0]);
    }

    protected function log(): \Closure
    {
        return $this->log;
    }

    /**
     * @param non-empty-list<Request> $requests
     *
     * @return list<Frame>
     */
    private function ask(array $requests): array
    {
        $frames = [];
        $changesNothing = true;
        foreach ($requests as $request) {
            $this->number = $this->number % self::MAX_NUMBER + 1;
            $frames[$this->number] = Wire::request($request, $this->number);
            $changesNothing = $changesNothing && $request->verb->changesNothing();
        }
        $firstBytes = strlen(reset($frames));
        $output = implode('', $frames);
        $connection = $this->connected();
        $wasKept = $connection->isKept();
        $deadline = Connection::now() + $this->ioTimeout;
        try {
            return $this->transfer($connection, $output, array_keys($frames), $deadline);
        } catch (Closed $closed) {
            $isUndone = $connection->written() < $firstBytes;
            $left = $deadline - Connection::now();
            if (!$wasKept || !$changesNothing && !$isUndone || $left <= 0) {
                throw $closed;
            }
        }
        // It has what the first attempt has left of the time, and the time of a connection.
        $connection = $this->connected();
        return $this->transfer($connection, $output, array_keys($frames), Connection::now() + $left);
    }

    /**
     * @param list<int> $numbers
     *
     * @return list<Frame>
     */
    private function transfer(Connection $connection, string $output, array $numbers, float $deadline): array
    {
        try {
            return $connection->transfer($output, $numbers, $deadline);
        } catch (\Throwable $error) {
            // Something of it may still be under way; also when a signal handler threw.
            $this->disconnect();
            throw $error;
        }
    }

    private function connected(): Connection
    {
        if ($this->connection !== null && $this->connection->isIdle()) {
            return $this->connection;
        }
        $this->disconnect();
        $failures = [];
        foreach ($this->urls as $url) {
            try {
                $greeter = Greeter::with($this->secret);
                $connection = Connection::open($url, $this->connectTimeout, $greeter, $this->name, $this->keptAs());
                if ($failures !== []) {
                    ($this->log)('longwire/client: ' . implode('; ', $failures) . "; $url is used instead");
                }
                return $this->connection = $connection;
            } catch (Exception $error) {
                $failures[] = "$url: {$error->getMessage()}";
            }
        }
        throw new ConnectFailed('no router: ' . implode('; ', $failures), 0, $error);
    }

    /** The name of a persistent stream: nobody gets one that was greeted with another secret, or before a fork. */
    private function keptAs(): ?string
    {
        if (!$this->persistent) {
            return null;
        }
        return 'longwire-client-' . getmypid() . '-' . hash_hmac('sha256', 'persistent stream', (string) $this->secret);
    }
}

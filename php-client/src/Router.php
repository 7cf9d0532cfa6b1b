<?php

declare(strict_types=1);

namespace Longwire\Client;

use Longwire\Client\Internal\Address;
use Longwire\Client\Internal\Connection;
use Longwire\Client\Internal\Frame;
use Longwire\Client\Internal\Greeter;
use Longwire\Client\Internal\Log;
use Longwire\Client\Internal\Report;
use Longwire\Client\Internal\Verbs;
use Longwire\Client\Internal\Wire;
use Psr\EventDispatcher\EventDispatcherInterface;
use Psr\Log\LoggerInterface;

/**
 * A client of a running Longwire's router port (docs/router-protocol.md).
 *
 * ```text
 *   first request           connection + handshake, one address after the other
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
 * A request takes at most connectTimeout for each address, and then ioTimeout for everything that it sends and reads. This includes a
 * retry and slow answers. A command is sent again only if the router cannot have run it: the connection was a reused one, the router had
 * closed it, and not even one whole command was written. Queries are always sent again.
 */
final class Router implements RouterInterface
{
    use Verbs;

    private const MAX_NUMBER = 0x7FFFFFFF;

    /** @var list<string> */
    private readonly array $urls;
    private readonly Log $log;
    private readonly Report $report;
    private ?Connection $connection = null;
    private int $number;

    /**
     * @param string|list<string>           $addresses      tcp://host:port, host:port or unix:/path; of several, the first that
     *                                                      accepts is used. $_SERVER['LONGWIRE_ROUTER'] is such an address
     * @param float                         $connectTimeout seconds to connect to one address, with the handshake. Name lookups
     *                                                      are done by the system and may take longer
     * @param float                         $ioTimeout      seconds to send requests and read all answers
     * @param string|null                   $secret         the value of [router] secret; no command is sent to a server that does
     *                                                      not prove that it knows it
     * @param bool                          $persistent     the connection outlives the page, in this PHP worker
     * @param LoggerInterface|callable|null $log            for warnings: a PSR-3 logger, or a callable that takes a string;
     *                                                      error_log() when absent
     * @param string                        $name           this client's name in Longwire's log; at most 64 bytes
     * @param EventDispatcherInterface|null $events         gets an event of Longwire\Client\Events for each receipt, refusal and
     *                                                      failure. The caller gets what a listener throws
     *
     * @throws InvalidArgument
     */
    public function __construct(
        string|array $addresses = 'tcp://127.0.0.1:9010',
        private readonly float $connectTimeout = 1.0,
        private readonly float $ioTimeout = 2.0,
        #[\SensitiveParameter] private readonly ?string $secret = null,
        private readonly bool $persistent = false,
        LoggerInterface|callable|null $log = null,
        private readonly string $name = 'longwire/client',
        ?EventDispatcherInterface $events = null,
    ) {
        $this->urls = array_map(Address::url(...), array_values((array) $addresses));
        if ($this->urls === []) {
            throw new InvalidArgument('a router needs at least one address');
        }
        $this->log = Log::to($log);
        $this->report = new Report($events);
        // On a persistent connection, answers to requests of an earlier page must not be taken for answers to this one.
        $this->number = random_int(0, self::MAX_NUMBER);
    }

    /** Closes the connection, even a persistent one; the next request opens a new one. */
    public function disconnect(): void
    {
        $this->connection?->close();
        $this->connection = null;
    }

    /**
     * Without the secret, for logs and error pages.
     *
     * @return array<string, mixed>
     */
    public function __debugInfo(): array
    {
        return ['addresses' => $this->urls, 'isConnected' => $this->connection !== null];
    }

    /**
     * @param non-empty-list<Request> $requests
     *
     * @return list<Receipt|Refused>
     */
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

    protected function log(): Log
    {
        return $this->log;
    }

    protected function report(): Report
    {
        return $this->report;
    }

    /**
     * @param list<Request> $requests at least one
     *
     * @return list<Frame>
     */
    private function ask(array $requests): array
    {
        $frames = [];
        $firstBytes = 0;
        $changesNothing = true;
        foreach ($requests as $request) {
            $this->number = $this->number % self::MAX_NUMBER + 1;
            $frames[$this->number] = Wire::request($request, $this->number);
            $firstBytes = $firstBytes === 0 ? strlen($frames[$this->number]) : $firstBytes;
            $changesNothing = $changesNothing && $request->verb->changesNothing();
        }
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
        // The second attempt has the rest of the time, plus the time for a connection.
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
            // Bytes of the transfer may still be under way, also if a signal handler threw.
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
        $last = null;
        foreach ($this->urls as $url) {
            try {
                $greeter = Greeter::with($this->secret);
                $connection = Connection::open($url, $this->connectTimeout, $greeter, $this->name, $this->keptAs());
                if ($failures !== []) {
                    $this->log->warning(implode('; ', $failures) . "; $url is used instead");
                }
                return $this->connection = $connection;
            } catch (Exception $error) {
                $failures[] = "$url: {$error->getMessage()}";
                $last = $error;
            }
        }
        throw new ConnectFailed('no router: ' . implode('; ', $failures), 0, $last);
    }

    /**
     * The name of a persistent stream. It has secret and pid in it, so that no page gets a stream of another secret or from before a
     * fork.
     */
    private function keptAs(): ?string
    {
        if (!$this->persistent) {
            return null;
        }
        return 'longwire-client-' . getmypid() . '-' . hash_hmac('sha256', 'persistent stream', (string) $this->secret);
    }
}

<?php

declare(strict_types=1);

namespace Longwire\Client\Internal;

use Longwire\Client\InvalidArgument;

/**
 * The address of a router, in the form that stream_socket_client() takes.
 *
 * @internal
 */
final class Address
{
    private const DEFAULT_PORT = 9010;

    /**
     * Takes tcp://host:port, host:port, [::1]:port, a host alone, unix:/path and unix:///path.
     *
     * @throws InvalidArgument
     */
    public static function url(string $address): string
    {
        if (str_starts_with($address, 'unix:')) {
            $path = preg_replace('#^unix:(//)?#', '', $address);
            return $path !== '' ? "unix://$path" : throw new InvalidArgument("$address has no path of a socket");
        }
        $rest = str_starts_with($address, 'tcp://') ? substr($address, 6) : $address;
        if (preg_match('#^(\[[0-9A-Fa-f:.%]+\]|[^:/\[\]\s]+)(?::(\d{1,5}))?$#D', $rest, $parts) !== 1) {
            throw new InvalidArgument("$address is none of tcp://host:port, host:port, [::1]:port and unix:/path");
        }
        return "tcp://$parts[1]:" . ($parts[2] ?? self::DEFAULT_PORT);
    }
}

<?php

// The packets of CMPP 2.0 (China Mobile): a 12-byte header and a body. Numbers are big-endian, texts are padded with zero bytes.

declare(strict_types=1);

namespace Cmpp;

const CONNECT = 1;
const TERMINATE = 2;
const SUBMIT = 4;
const DELIVER = 5;
const RESP = 0x80000000;

const VERSION = 0x20;

/** The message formats for text, with their names for iconv(). */
const CHARSETS = [0 => 'ASCII', 8 => 'UCS-2BE', 15 => 'GBK'];

/** A whole packet. */
function packet(int $command, int $sequence, string $body): string
{
    return pack('N3', 12 + strlen($body), $command, $sequence) . $body;
}

/**
 * The authenticator of a client's login: MD5 of its name, nine zero bytes, the secret and the ten digits MMDDHHMMSS.
 */
function authenticator(string $account, string $secret, int $timestamp): string
{
    return md5($account . str_repeat("\0", 9) . $secret . sprintf('%010d', $timestamp), true);
}

/** @return array{account: string, authenticator: string, version: int, timestamp: int}|null */
function connect(string $body): ?array
{
    if (strlen($body) !== 27) {
        return null;
    }
    $fields = unpack('a6account/a16authenticator/Cversion/Ntimestamp', $body);
    $fields['account'] = rtrim($fields['account'], "\0");
    return $fields;
}

/**
 * The fields of a CMPP_SUBMIT that a gateway needs; null when lengths and body do not agree.
 *
 * @return array{report: int, service: string, format: int, from: string, to: string[], content: string}|null
 */
function submit(string $body): ?array
{
    if (strlen($body) < 117) {
        return null;
    }
    $fixed = unpack(
        'a8id/Ctotal/Cnumber/Creport/Clevel/a10service/Cfee_user/a21fee_terminal/Cpid/Cudhi/Cformat/a6source'
        . '/a2fee_type/a6fee_code/a17valid/a17at/a21from/Ccount',
        $body,
    );
    $numbers = 21 * $fixed['count'];
    if ($fixed['count'] === 0 || strlen($body) < 117 + $numbers + 1) {
        return null;
    }
    $length = ord($body[117 + $numbers]);
    if (strlen($body) !== 117 + $numbers + 1 + $length + 8) {
        return null;
    }
    return [
        'report' => $fixed['report'],
        'service' => text($fixed['service']),
        'format' => $fixed['format'],
        'from' => text($fixed['from']),
        'to' => array_map(text(...), str_split(substr($body, 117, $numbers), 21)),
        'content' => substr($body, 118 + $numbers, $length),
    ];
}

/** The body of a CMPP_DELIVER: a message from a phone or, with `$report`, the delivery report of a message to it. */
function deliver(string $id, string $to, string $service, string $from, int $format, string $content, bool $report): string
{
    return pack('a8a21a10CCCa21CC', $id, $to, $service, 0, 0, $format, $from, (int) $report, strlen($content))
        . $content . str_repeat("\0", 8);
}

/** The content of a delivery report. */
function report(string $id, string $state, string $submitted, string $done, string $number, int $smsc): string
{
    return pack('a8a7a10a10a21N', $id, $state, $submitted, $done, $number, $smsc);
}

/** A message content as UTF-8; null if it is not a text, or not valid in that format. */
function decoded(int $format, string $content): ?string
{
    $charset = CHARSETS[$format] ?? null;
    $text = $charset === null ? false : @iconv($charset, 'UTF-8', $content);
    return $text === false ? null : $text;
}

/** The smallest format for a text, and the text in that format. @return array{int, string} */
function encoded(string $text): array
{
    $is_ascii = preg_match('/^[\x00-\x7f]*$/', $text) === 1;
    return $is_ascii ? [0, $text] : [8, (string) iconv('UTF-8', 'UCS-2BE', $text)];
}

/** A field up to its first zero byte. */
function text(string $field): string
{
    return explode("\0", $field, 2)[0];
}

<?php

declare(strict_types=1);

namespace Longwire\Client\Internal;

use Longwire\Client\ProtocolError;

/**
 * Cuts received bytes into frames: call push(), then next() until it returns null.
 *
 * @internal
 */
final class FrameReader
{
    /** Answers are far smaller, because lists have at most 1000 names. A router never announces more. */
    private const MAX_BODY_BYTES = 16 * 1024 * 1024;
    /** When more bytes than this belong to finished frames, they are cut off the buffer while other frames wait. */
    private const CUT_BYTES = 1024 * 1024;

    private string $input = '';
    private int $at = 0;

    public function push(string $bytes): void
    {
        $this->input .= $bytes;
    }

    public function isEmpty(): bool
    {
        return $this->input === '';
    }

    /**
     * The next frame; null if it is not whole yet.
     *
     * @throws ProtocolError as soon as the bytes cannot be a frame
     */
    public function next(): ?Frame
    {
        $there = strlen($this->input) - $this->at;
        if ($there < 8) {
            return null;
        }
        $type = Bytes::u16($this->input, $this->at);
        $slen = Bytes::u16($this->input, $this->at + 2);
        $len = Bytes::u32($this->input, $this->at + 4);
        if ($type >> 8 !== 0x4C || $len > self::MAX_BODY_BYTES) {
            throw new ProtocolError('the server is not a Longwire router', true);
        }
        if ($there < 8 + $slen + $len) {
            return null;
        }
        $fields = self::fields(substr($this->input, $this->at + 8, $slen));
        $frame = new Frame($type, $fields, substr($this->input, $this->at + 8 + $slen, $len));
        $this->at += 8 + $slen + $len;
        if ($this->at === strlen($this->input) || $this->at > self::CUT_BYTES) {
            $this->input = substr($this->input, $this->at);
            $this->at = 0;
        }
        return $frame;
    }

    /** @return array<int, string> */
    private static function fields(string $bytes): array
    {
        $fields = [];
        for ($at = 0; $at < strlen($bytes); $at += 3 + $length) {
            $isHeadWhole = strlen($bytes) - $at >= 3;
            $length = $isHeadWhole ? Bytes::u16($bytes, $at + 1) : 0;
            if (!$isHeadWhole || $at + 3 + $length > strlen($bytes)) {
                throw new ProtocolError('the fields of an answer are longer than the answer', true);
            }
            $fields[Bytes::u8($bytes, $at)] = substr($bytes, $at + 3, $length);
        }
        return $fields;
    }
}

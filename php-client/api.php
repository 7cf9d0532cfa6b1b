<?php
/**
 * Longwire's router from any PHP script, in one file: include it, or copy it beside your scripts.
 *
 *     include 'api.php';
 *     $router = new RouterClient('127.0.0.1', 9010);
 *     $router->sendMsg($sessionId, 'hi');
 *     $router->sendAllMsg('hi all');
 *     $router->publish('news', 'hi group');
 *
 * The names, their arguments and the shape of info() are those of fooking's RouterClient. Every command returns its receipt, a non-empty
 * array, or false if the router could not be reached. Then lastError() has the reason, which is also written to PHP's error log.
 * Nothing here prints, throws (unless you ask for it) or waits longer than its timeouts.
 *
 * Needs PHP 7.2 or later and only standard extensions. The package longwire/client does the same with classes and exceptions.
 */

if (!class_exists('RouterClient', false)) {

    class RouterClient
    {
        const VERSION = 1;
        /** More ids than this are sent as several commands, because the fields of one have at most 65535 bytes, and an id has 16. */
        const IDS_PER_COMMAND = 2000;

        private $addresses;
        private $secret;
        private $connectTimeout;
        private $timeout;
        private $persistent;
        private $throws;

        private $socket = null;
        /** The pid of the process that opened it, because a fork must not use the same connection. */
        private $pid = 0;
        /** How many bytes of the current requests the kernel has taken. */
        private $written = 0;
        /** Bytes that were read and are not a whole frame yet. */
        private $input = '';
        private $at = 0;
        private $number = 0;
        private $error = '';
        /** Between begin() and commit(): for each call its encoded requests, by number, or the reason why it was refused. */
        private $batch = null;

        /**
         * @param string|string[] $host '127.0.0.1', 'unix:/run/longwire/router.sock', '[::1]:9010', or several of these: the
         *                              first that answers is used. $_SERVER['LONGWIRE_ROUTER'] is such an address.
         * @param int             $port for a host without one
         * @param string|null     $secret the value of [router] secret; no command is sent to a server that does not prove that it knows it
         * @param array           $options connect_timeout (1.0 s to connect to one address, with the handshake), timeout (2.0 s for
         *                                 everything after that), persistent (false; the connection outlives the page), throw (false;
         *                                 RuntimeException)
         */
        public function __construct($host = '127.0.0.1', $port = 9010, $secret = null, array $options = array())
        {
            $this->addresses = array();
            foreach ((array) $host as $address) {
                $this->addresses[] = self::url($address, $port);
            }
            $this->secret = $secret;
            $this->connectTimeout = isset($options['connect_timeout']) ? (float) $options['connect_timeout'] : 1.0;
            $this->timeout = isset($options['timeout']) ? (float) $options['timeout'] : 2.0;
            $this->persistent = !empty($options['persistent']);
            $this->throws = !empty($options['throw']);
            // Begin with a random number, so that on a persistent connection answers to requests of an earlier page, or of a parent process,
            // are not taken for answers to this one. Not mt_rand(), because a fork inherits its state.
            $this->number = random_int(1, 0x3FFFFFFF);
        }

        // ---- As in fooking ----------------------------------------------------------------------------------------

        /** Sends to one session or several. Options here and below: type ('text', 'binary'), key, id, except. */
        public function sendMsg($sid, $msg, array $options = array())
        {
            return $this->command(0x4C10, array('sessions' => $sid), $options, $msg);
        }

        /** Sends to every session. */
        public function sendAllMsg($msg, array $options = array())
        {
            return $this->command(0x4C10, array('to' => 'all'), $options, $msg);
        }

        /** Sends to every session in a channel. */
        public function publish($channel, $msg, array $options = array())
        {
            return $this->command(0x4C10, array('channel' => $channel), $options, $msg);
        }

        /** Joins one session or several to a channel. */
        public function addChannel($channel, $sid)
        {
            return $this->command(0x4C11, array('sessions' => $sid, 'name' => $channel));
        }

        /** Removes one session or several from a channel. */
        public function delChannel($channel, $sid)
        {
            return $this->command(0x4C12, array('sessions' => $sid, 'name' => $channel));
        }

        /** Closes one session or several. */
        public function kickUser($sid)
        {
            return $this->command(0x4C13, array('sessions' => $sid));
        }

        /** array('clients' => n, 'channels' => n, 'gateway' => array(SERVERID => array(array('serverid' => ...)))), of all nodes */
        public function info()
        {
            $answer = $this->nodes();
            if ($answer === false) {
                return array();
            }
            $gateways = array();
            foreach ($answer['nodes'] as $node) {
                $gateways[$node['number']] = array(array(
                    'serverid' => (string) $node['number'],
                    'workerid' => '0',
                    'clients' => (string) $node['sessions'],
                    'channels' => (string) $node['channels']
                ));
            }
            return array(
                'clients' => (string) array_sum(array_column($answer['nodes'], 'sessions')),
                'channels' => (string) array_sum(array_column($answer['nodes'], 'channels')),
                'gateway' => $gateways
            );
        }

        /** Closes the connection; the next call opens another. */
        public function close()
        {
            if (is_resource($this->socket)) {
                @fclose($this->socket);
            }
            $this->socket = null;
            $this->input = '';
            $this->at = 0;
        }

        // ---- New in Longwire ---------------------------------------------------------------------------------------------

        /** Sends to 'session:ID', 'uid:42', 'channel:news', 'all', or an array of session ids. */
        public function send($to, $msg, array $options = array())
        {
            return $this->command(0x4C10, array('to' => $to), $options, $msg);
        }

        /** Sends to every session of a user. */
        public function sendToUid($uid, $msg, array $options = array())
        {
            return $this->command(0x4C10, array('uid' => $uid), $options, $msg);
        }

        /** Closes sessions with a code and a reason, after a last message if there is one. */
        public function closeSession($to, $code = 1000, $reason = '', $lastMsg = '', array $options = array())
        {
            return $this->command(0x4C13, array('to' => $to, 'code' => $code, 'reason' => $reason), $options, $lastMsg);
        }

        /** Joins or leaves the sessions of any target. */
        public function join($to, $channel, array $options = array())
        {
            return $this->command(0x4C11, array('to' => $to, 'name' => $channel), $options);
        }

        public function leave($to, $channel, array $options = array())
        {
            return $this->command(0x4C12, array('to' => $to, 'name' => $channel), $options);
        }

        /** Binds a session to a user: $_SERVER['LONGWIRE_UID'] from its next event on. */
        public function bindUid($sid, $uid)
        {
            return $this->command(0x4C14, array('sessions' => $sid, 'name' => $uid));
        }

        public function unbindUid($sid)
        {
            return $this->command(0x4C15, array('sessions' => $sid));
        }

        /** Sets an attribute: $_SERVER['LONGWIRE_ATTR_KEY'] from the session's next event on. */
        public function setAttr($sid, $key, $value)
        {
            return $this->command(0x4C16, array('sessions' => $sid, 'name' => $key), array(), $value);
        }

        /** Sets it if it is $expected now (null: if it does not exist). Otherwise the receipt's 'refused' is 1. */
        public function compareAndSetAttr($sid, $key, $expected, $value)
        {
            $what = array('sessions' => $sid, 'name' => $key);
            $what += $expected === null ? array('absent' => '') : array('expect' => $expected);
            return $this->command(0x4C16, $what, array(), $value);
        }

        public function delAttr($sid, $key)
        {
            return $this->command(0x4C17, array('sessions' => $sid, 'name' => $key));
        }

        /** The value; null if there is none. */
        public function getAttr($sid, $key)
        {
            return $this->query(0x4C20, array('sessions' => $sid, 'name' => $key), false);
        }

        /** Whether a session exists. For several ids: how many of them exist. Also false (0) if the router could not be reached. */
        public function exists($sid)
        {
            $this->error = '';
            try {
                // Send it at once, even between begin() and commit().
                $requests = $this->requests(0x4C18, array('sessions' => $sid), '', '');
                $receipt = self::sum($this->exchange($requests, true));
            } catch (RuntimeException $error) {
                return $this->failed($error);
            }
            return is_array($sid) ? $receipt['reached'] : $receipt['reached'] > 0;
        }

        /** All data of one session; null if it is gone. */
        public function session($sid)
        {
            return $this->query(0x4C21, array('sessions' => $sid));
        }

        /** array('channel', 'count', 'sessions' => ids, 'next' => where to go on): at most $limit ids after $after. */
        public function channel($channel, $after = null, $limit = 100)
        {
            return $this->query(0x4C22, array('channel' => $channel) + self::page($after, $limit));
        }

        /** array('uid', 'count', 'sessions', 'next') */
        public function uid($uid, $after = null, $limit = 100)
        {
            return $this->query(0x4C23, array('uid' => $uid) + self::page($after, $limit));
        }

        /** array('count', 'channels' => array(array('channel', 'count'), ...), 'next') */
        public function channels($after = null, $limit = 100)
        {
            return $this->query(0x4C24, self::page($after, $limit));
        }

        /** array('count', 'sessions' => ids, 'next') */
        public function sessionList($after = null, $limit = 100)
        {
            return $this->query(0x4C25, self::page($after, $limit));
        }

        /** array('node', 'number', 'version', 'sessions', 'channels', 'uids', 'draining', 'seconds') */
        public function node()
        {
            return $this->query(0x4C26, array());
        }

        /** array('nodes' => one array for each node, as node() gives it, 'unreachable' => names, if some did not answer) */
        public function nodes()
        {
            return $this->query(0x4C27, array());
        }

        /** From now on commands are only collected, and each returns true ... */
        public function begin()
        {
            $this->batch = array();
        }

        /** ... until this sends all at once. Returns the receipts in the order of the calls (false for one that was refused), or false. */
        public function commit()
        {
            $batch = $this->batch;
            $this->batch = null;
            $this->error = '';
            if (!$batch) {
                return array();
            }
            $requests = array();
            foreach ($batch as $call) {
                $requests += is_array($call) ? $call : array();
            }
            try {
                $answers = $requests ? $this->exchange($requests, false) : array();
            } catch (RuntimeException $error) {
                return $this->failed($error);
            }
            $receipts = array();
            foreach ($batch as $call) {
                try {
                    if (!is_array($call)) {
                        throw $call;
                    }
                    $receipts[] = self::sum(array_splice($answers, 0, count($call)));
                } catch (RuntimeException $error) {
                    $this->error = $error->getMessage();
                    $receipts[] = false;
                }
            }
            return $receipts;
        }

        /** Why the last call returned false; empty if it did not. */
        public function lastError()
        {
            return $this->error;
        }

        // ---- Fields --------------------------------------------------------------------------------------------------

        private static function url($address, $port)
        {
            if (strpos($address, 'unix:') === 0) {
                return 'unix://' . preg_replace('#^unix:(//)?#', '', $address);
            }
            $address = preg_replace('#^tcp://#', '', $address);
            if (!preg_match('/^(\[.*\]|[^:]*):\d+$/', $address)) {
                $address = (strpos($address, ':') !== false && $address[0] !== '[' ? "[$address]" : $address) . ':' . $port;
            }
            return 'tcp://' . $address;
        }

        private static function fields(array $what)
        {
            static $tags = array(
                'uid' => 0x11, 'channel' => 0x12, 'name' => 0x20, 'code' => 0x23, 'reason' => 0x24, 'expect' => 0x25,
                'absent' => 0x26, 'after' => 0x27, 'limit' => 0x28
            );
            $fields = '';
            foreach ($what as $name => $value) {
                if ($name === 'to') {
                    $fields .= self::target($value);
                } elseif ($name === 'sessions') {
                    $fields .= self::sessions($value);
                } elseif ($name === 'code' || $name === 'limit') {
                    if ($value < 0 || $value > 65535) {
                        throw new RuntimeException("the $name is $value, which is not 0 to 65535");
                    }
                    $fields .= self::field($tags[$name], pack('n', $value));
                } else {
                    $fields .= self::field($tags[$name], $value);
                }
            }
            return $fields;
        }

        private static function field($tag, $value)
        {
            $value = (string) $value;
            if (strlen($value) > 65535) {
                throw new RuntimeException(sprintf('a field has %d bytes, at most 65535 are allowed', strlen($value)));
            }
            return pack('Cn', $tag, strlen($value)) . $value;
        }

        private static function sessions($sid, $tag = 0x10)
        {
            return self::field($tag, implode('', self::ids($sid)));
        }

        /** One id or several, each checked for its length. */
        private static function ids($sid)
        {
            $ids = array();
            foreach ((array) $sid as $id) {
                // Old scripts may pass anything, even null and arrays.
                $id = is_scalar($id) ? (string) $id : '';
                if (strlen($id) !== 16) {
                    throw new RuntimeException('a session id has 16 characters: ' . substr($id, 0, 40));
                }
                $ids[] = $id;
            }
            return $ids;
        }

        private static function target($to, $except = 0)
        {
            if (is_array($to)) {
                return self::sessions($to, 0x10 + $except);
            }
            $to = (string) $to;
            $parts = explode(':', $to, 2);
            $value = isset($parts[1]) ? $parts[1] : '';
            switch ($parts[0]) {
                case 'session':
                    return self::sessions($value, 0x10 + $except);
                case 'uid':
                    return self::field(0x11 + $except, $value);
                case 'channel':
                    return self::field(0x12 + $except, $value);
                case 'all':
                    if ($to === 'all' && !$except) {
                        return self::field(0x13, '');
                    }
            }
            if (!isset($parts[1]) && strlen($to) === 16) {
                return self::sessions($to, 0x10 + $except);
            }
            throw new RuntimeException("$to is none of session:ID, uid:NAME, channel:NAME" . ($except ? '' : ' and all'));
        }

        private static function options(array $options)
        {
            $fields = '';
            foreach ($options as $name => $value) {
                if ($name === 'except') {
                    foreach ((array) $value as $whom) {
                        $fields .= self::target($whom, 8);
                    }
                } elseif ($name === 'type' && ($value === 'text' || $value === 'binary')) {
                    $fields .= self::field(0x21, $value === 'text' ? "\x01" : "\x02");
                } elseif ($name === 'key') {
                    $fields .= self::field(0x22, $value);
                } elseif ($name === 'id') {
                    $fields .= self::field(0x29, $value);
                } else {
                    throw new RuntimeException("there is no option $name, or its value is wrong");
                }
            }
            return $fields;
        }

        private static function page($after, $limit)
        {
            return ($after === null ? array() : array('after' => $after)) + array('limit' => $limit);
        }

        private static function frame($type, $fields, $body)
        {
            if (strlen($fields) > 65535) {
                throw new RuntimeException('too many exceptions: the fields of a command have at most 65535 bytes');
            }
            return pack('nnN', $type, strlen($fields), strlen($body)) . $fields . $body;
        }

        private static function parse($fields)
        {
            $parsed = array();
            $at = 0;
            while ($at + 3 <= strlen($fields)) {
                $head = unpack('Ctag/nlength', substr($fields, $at, 3));
                $parsed[$head['tag']] = (string) substr($fields, $at + 3, $head['length']);
                $at += 3 + $head['length'];
            }
            return $parsed;
        }

        // ---- Requests ------------------------------------------------------------------------------------------------

        private function command($type, array $what, array $options = array(), $body = '')
        {
            $this->error = '';
            try {
                if ($this->batch !== null) {
                    // A call that is refused here keeps its place in the results.
                    $place = count($this->batch);
                    $this->batch[$place] = array();
                }
                try {
                    $requests = $this->requests($type, $what, self::options($options), (string) $body);
                } catch (RuntimeException $error) {
                    if ($this->batch !== null) {
                        $this->batch[$place] = $error;
                    }
                    throw $error;
                }
                if ($this->batch !== null) {
                    $this->batch[$place] = $requests;
                    return true;
                }
                return self::sum($this->exchange($requests, false));
            } catch (RuntimeException $error) {
                return $this->failed($error);
            }
        }

        private function query($type, array $what, $json = true)
        {
            $this->error = '';
            try {
                $answers = $this->exchange($this->request($type, self::fields($what), ''), true);
                $answer = self::checked($answers[0]);
                if ($answer['type'] === 0x4C82) {
                    return null;
                }
                if ($answer['type'] !== 0x4C81) {
                    throw new RuntimeException('the router sent another answer than a result');
                }
                $value = $json ? json_decode($answer['body'], true) : $answer['body'];
                if ($value === null) {
                    throw new RuntimeException('the router sent an answer that is not JSON');
                }
                return $value;
            } catch (RuntimeException $error) {
                return $this->failed($error);
            }
        }

        /** A command as one request, or as several if it names too many sessions for one. */
        private function requests($type, array $what, $fields, $body)
        {
            $key = isset($what['sessions']) ? 'sessions' : 'to';
            if (!isset($what[$key]) || !is_array($what[$key]) || count($what[$key]) <= self::IDS_PER_COMMAND) {
                return $this->request($type, self::fields($what) . $fields, $body);
            }
            $requests = array();
            // Remove duplicates, because an id in two of the requests would get the message twice.
            foreach (array_chunk(array_unique(self::ids($what[$key])), self::IDS_PER_COMMAND) as $ids) {
                $requests += $this->request($type, self::fields(array($key => $ids) + $what) . $fields, $body);
            }
            return $requests;
        }

        private function request($type, $fields, $body)
        {
            $this->number = $this->number % 0x7FFFFFFF + 1;
            return array($this->number => self::frame($type, self::field(0x06, pack('N', $this->number)) . $fields, $body));
        }

        private static function checked(array $answer)
        {
            if ($answer['type'] === 0x4C83) {
                $word = isset($answer['fields'][0x08]) ? $answer['fields'][0x08] : 'error';
                throw new RuntimeException($word . ': ' . $answer['body']);
            }
            return $answer;
        }

        private static function receipt(array $answer)
        {
            self::checked($answer);
            if ($answer['type'] !== 0x4C80 || !isset($answer['fields'][0x07]) || strlen($answer['fields'][0x07]) < 32) {
                throw new RuntimeException('the router sent another answer than a receipt');
            }
            $n = array_values(unpack('N8', $answer['fields'][0x07]));
            $fields = $answer['fields'];
            return array(
                'reached' => $n[0],
                'queued' => $n[1],
                'dropped' => array('close' => $n[2], 'oldest' => $n[3], 'newest' => $n[4], 'latest' => $n[5]),
                'refused' => $n[6],
                'gone' => $n[7],
                'unreachable' => isset($fields[0x09]) ? explode("\n", $fields[0x09]) : array(),
                'engine_down' => isset($fields[0x0A])
            );
        }

        /** The sum of the receipts of a command that was sent as several requests. */
        private static function sum(array $answers)
        {
            $sum = self::receipt($answers[0]);
            foreach (array_slice($answers, 1) as $answer) {
                $receipt = self::receipt($answer);
                foreach (array('reached', 'queued', 'refused', 'gone') as $count) {
                    $sum[$count] += $receipt[$count];
                }
                foreach ($receipt['dropped'] as $rule => $count) {
                    $sum['dropped'][$rule] += $count;
                }
                $sum['unreachable'] = array_values(array_unique(array_merge($sum['unreachable'], $receipt['unreachable'])));
                $sum['engine_down'] = $sum['engine_down'] || $receipt['engine_down'];
            }
            return $sum;
        }

        private function failed(RuntimeException $error)
        {
            $this->error = $error->getMessage();
            if ($this->throws) {
                throw $error;
            }
            error_log('RouterClient: ' . $this->error);
            return false;
        }

        /**
         * Sends requests and reads an answer to each. If the router had closed a reused connection, they are sent again, but only if they
         * change nothing or if not even the first one was written whole.
         */
        private function exchange(array $requests, $changesNothing)
        {
            $isKept = $this->open();
            $deadline = self::now() + $this->timeout;
            try {
                return $this->transfer($requests, $deadline);
            } catch (RuntimeException $error) {
                $this->close();
                $isUndone = $changesNothing || $this->written < strlen(reset($requests));
                $left = $deadline - self::now();
                if (!$isKept || !$isUndone || $left <= 0) {
                    throw $error;
                }
            }
            // The second attempt has the rest of the time, plus the time for a connection.
            $this->open();
            try {
                return $this->transfer($requests, self::now() + $left);
            } catch (RuntimeException $error) {
                $this->close();
                throw $error;
            }
        }

        private function transfer(array $requests, $deadline)
        {
            // A non-blocking persistent stream was left by a page that died in a transfer.
            stream_set_blocking($this->socket, false);
            $this->written = 0;
            $output = implode('', $requests);
            $answers = array();
            foreach (array_keys($requests) as $number) {
                $answer = $this->read($deadline, $this->timeout, $output);
                $about = isset($answer['fields'][0x06]) ? $answer['fields'][0x06] : null;
                if ($about !== pack('N', $number)) {
                    self::checked($answer);
                    throw new RuntimeException('the router answered another request than this one');
                }
                $answers[] = $answer;
            }
            stream_set_blocking($this->socket, true);
            return $answers;
        }

        // ---- The connection ------------------------------------------------------------------------------------------

        /** Connects if needed; true if the connection was open already. */
        private function open()
        {
            if ($this->socket && $this->pid === getmypid() && $this->isAlive()) {
                return true;
            }
            $this->close();
            $this->pid = getmypid();
            $failures = array();
            foreach ($this->addresses as $address) {
                $message = '';
                $deadline = self::now() + $this->connectTimeout;
                $socket = $this->connect($address, $deadline, $message);
                if (!$socket) {
                    $failures[] = "$address: " . ($message !== '' ? $message : 'no connection');
                    continue;
                }
                $this->socket = $socket;
                if ($this->persistent && ftell($socket) > 0) {
                    // An earlier page has made its handshake, or has died in the middle of a transfer, perhaps after half of a command.
                    $state = stream_get_meta_data($socket);
                    if ($state['blocked'] && $this->isAlive()) {
                        return true;
                    }
                    fclose($socket);
                    $socket = $this->connect($address, $deadline, $message);
                    if (!$socket) {
                        $failures[] = "$address: $message";
                        $this->socket = null;
                        continue;
                    }
                    $this->socket = $socket;
                }
                try {
                    $this->greet($deadline);
                    return false;
                } catch (RuntimeException $error) {
                    $this->close();
                    $failures[] = "$address: " . $error->getMessage();
                }
            }
            throw new RuntimeException('no router: ' . implode('; ', $failures));
        }

        /**
         * A stream, or false and the reason. A persistent stream is found by its name. So no page gets one whose handshake used another
         * secret, or one from before a fork, which the child shares with its parent.
         */
        private function connect($address, $deadline, &$message)
        {
            $left = max(0.001, $deadline - self::now());
            $code = 0;
            $name = getmypid() . '-' . hash_hmac('sha256', 'persistent stream', (string) $this->secret);
            if ($this->persistent && strpos($address, 'tcp://') === 0) {
                $flags = STREAM_CLIENT_PERSISTENT;
                $flags |= STREAM_CLIENT_CONNECT;
                return @stream_socket_client("$address/longwire-$name", $code, $message, $left, $flags);
            }
            if ($this->persistent && function_exists('pfsockopen')) {
                // A Unix socket's path cannot contain a name. A port below 0 becomes part of the key and has no other effect (main/streams of PHP).
                return @pfsockopen($address, -1 - (crc32($name) & 0x7FFFFFFE), $code, $message, $left);
            }
            return @stream_socket_client($address, $code, $message, $left);
        }

        /** Whether there is nothing to read, not even an end of stream, as between two requests. */
        private function isAlive()
        {
            // Another object of this page may have closed a persistent stream that both use.
            if (!is_resource($this->socket) || strlen($this->input) > $this->at) {
                return false;
            }
            // Not feof(), because it waits for default_socket_timeout if there is nothing to read.
            $read = array($this->socket);
            $none = array();
            $ready = @stream_select($read, $none, $none, 0);
            if ($ready !== false) {
                return $ready === 0;
            }
            // select() fails with descriptors above 1023, so peek at the socket. False: nothing to read; empty: it has ended.
            $state = stream_get_meta_data($this->socket);
            stream_set_blocking($this->socket, false);
            $isQuiet = @stream_socket_recvfrom($this->socket, 1, STREAM_PEEK) === false;
            stream_set_blocking($this->socket, $state['blocked']);
            return $isQuiet;
        }

        /** The time in seconds. (PHP has a monotonic clock only since 7.3.) */
        private static function now()
        {
            return microtime(true);
        }

        private function greet($deadline)
        {
            stream_set_blocking($this->socket, false);
            stream_set_write_buffer($this->socket, 0);
            $nonce = random_bytes(32);
            $hello = self::field(0x01, chr(self::VERSION)) . self::field(0x02, $nonce) . self::field(0x03, 'api.php');
            $this->written = 0;
            $output = self::frame(0x4C01, $hello, '');
            $challenge = self::checked($this->read($deadline, $this->connectTimeout, $output));
            $fields = $challenge['fields'];
            if ($challenge['type'] !== 0x4C02 || !isset($fields[0x02], $fields[0x04]) || strlen($fields[0x02]) !== 32) {
                throw new RuntimeException('the server is not a Longwire router');
            }
            // An impostor would say that it needs no proof. So if a secret is set, the server must ask for it.
            $proves = $this->secret !== null && $this->secret !== '';
            if (!$proves && $fields[0x04] !== "\x00") {
                throw new RuntimeException('the router asks for a secret');
            }
            if ($proves && $fields[0x04] !== "\x01") {
                throw new RuntimeException('the server does not ask for the secret, so it may not know it');
            }
            if ($proves) {
                $proof = hash_hmac('sha256', 'longwire router 1 client' . $nonce . $fields[0x02], $this->secret, true);
                $this->written = 0;
                $output = self::frame(0x4C03, self::field(0x05, $proof), '');
            }
            $welcome = self::checked($this->read($deadline, $this->connectTimeout, $output));
            if ($welcome['type'] !== 0x4C04) {
                throw new RuntimeException('the router sent another answer than a welcome');
            }
            if ($proves) {
                $expected = hash_hmac('sha256', 'longwire router 1 server' . $fields[0x02] . $nonce, $this->secret, true);
                if (!isset($welcome['fields'][0x05]) || !hash_equals($expected, $welcome['fields'][0x05])) {
                    throw new RuntimeException('the router does not know the secret');
                }
            }
            stream_set_blocking($this->socket, true);
        }

        /** Reads the next frame and writes $output meanwhile, because a router whose answers are not read stops reading. */
        private function read($deadline, $timeout, $output)
        {
            while (true) {
                $frame = $this->takeFrame();
                if ($frame !== null) {
                    return $frame;
                }
                $left = $deadline - self::now();
                if ($left <= 0) {
                    throw new RuntimeException(sprintf('the router did not answer within %g s', $timeout));
                }
                $read = array($this->socket);
                $write = $this->written < strlen($output) ? array($this->socket) : array();
                $none = array();
                $ready = @stream_select($read, $write, $none, (int) $left, (int) (($left - (int) $left) * 1000000));
                if ($ready === false) {
                    // A signal, or a descriptor above 1023, with which select() fails. The socket is non-blocking, so try it directly after a
                    // moment; the deadline still holds.
                    usleep(1000);
                    $read = array($this->socket);
                    $write = $this->written < strlen($output) ? array($this->socket) : array();
                }
                if ($write) {
                    $written = @fwrite($this->socket, substr($output, $this->written, 262144));
                    $this->written += (int) $written;
                    // If there is something to read, it may be an error with the reason.
                    if ($written === false && !$read) {
                        throw new RuntimeException('the router closed the connection');
                    }
                }
                if ($read) {
                    $piece = @fread($this->socket, 262144);
                    if ($piece === false || $piece === '') {
                        $state = stream_get_meta_data($this->socket);
                        if ($state['eof'] || $piece === false) {
                            throw new RuntimeException('the router closed the connection');
                        }
                        continue;
                    }
                    $this->input .= $piece;
                }
            }
        }

        private function takeFrame()
        {
            $there = strlen($this->input) - $this->at;
            if ($there < 8) {
                return null;
            }
            $head = unpack('ntype/nslen/Nlen', substr($this->input, $this->at, 8));
            // Lists have at most 1000 names, so a router never sends a longer answer.
            if ($head['type'] >> 8 !== 0x4C || $head['len'] > 16777216) {
                throw new RuntimeException('the server is not a Longwire router');
            }
            $whole = 8 + $head['slen'] + $head['len'];
            if ($there < $whole) {
                return null;
            }
            $frame = array(
                'type' => $head['type'],
                'fields' => self::parse((string) substr($this->input, $this->at + 8, $head['slen'])),
                'body' => (string) substr($this->input, $this->at + 8 + $head['slen'], $head['len'])
            );
            $this->at += $whole;
            // Not for each frame, because ten thousand answers may be here at once.
            if ($this->at === strlen($this->input) || $this->at > 1048576) {
                $this->input = (string) substr($this->input, $this->at);
                $this->at = 0;
            }
            return $frame;
        }
    }
}

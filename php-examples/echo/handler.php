<?php

// One frame comes in, and what is echoed goes back to the client that sent it.

$frame = file_get_contents('php://input');

// With a length the answer is exactly these bytes, also when there are none: an empty frame is answered by an empty one.
header('Content-Length: ' . strlen($frame));
echo $frame;

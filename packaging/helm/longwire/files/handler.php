<?php

// Each event is one frame, and the script's output goes back to the client that sent it.

$frame = file_get_contents('php://input');

// With Content-Length the answer is exactly these bytes, even if there are none: an empty frame is answered by an empty one.
header('Content-Length: ' . strlen($frame));
echo $frame;

// A responder on node-fastcgi: echoes frames and notes events.
//
//   node echo.js SOCKET
//
// One process without a limit of requests at once. It closes the connection after each answer.
"use strict";

const fs = require("node:fs");
const fcgi = require("node-fastcgi");

fcgi
  .createServer((request, response) => {
    const params = request.socket.params ?? request.cgiParams;
    const pieces = [];
    request.on("data", (piece) => pieces.push(piece));
    request.on("end", () => {
      fs.appendFileSync(params.NOTES, `${params.LONGWIRE_EVENT} ${params.SESSIONID} ${params.LONGWIRE_SEQ}\n`);
      const body = Buffer.concat(pieces);
      response.writeHead(200, { "Content-Length": body.length });
      response.end(body);
    });
  })
  .listen(process.argv[2]);

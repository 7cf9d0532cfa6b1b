#!/usr/bin/perl
# A responder on Perl's FCGI, which is libfcgi: echoes frames and notes events.
#
#   echo.fcgi.pl SOCKET PROCESSES
#
# One request at a time in each process.
use strict;
use warnings;
use FCGI;
use IO::Handle;

my ($path, $processes) = @ARGV;
my $socket = FCGI::OpenSocket($path, 64);
for (2 .. $processes) {
    last if !fork;
}
my %env;
my ($in, $out, $err) = (IO::Handle->new, IO::Handle->new, IO::Handle->new);
my $request = FCGI::Request($in, $out, $err, \%env, $socket);
while ($request->Accept >= 0) {
    open my $notes, '>>', $env{NOTES} or die;
    syswrite $notes, "$env{LONGWIRE_EVENT} $env{SESSIONID} $env{LONGWIRE_SEQ}\n";
    close $notes;
    my $body = '';
    while ((my $left = ($env{CONTENT_LENGTH} || 0) - length $body) > 0) {
        read($in, $body, $left, length $body) or last;
    }
    print $out "Content-Length: ", length $body, "\r\n\r\n", $body;
    $request->Finish;
}

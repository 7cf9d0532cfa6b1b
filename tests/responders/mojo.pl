#!/usr/bin/perl
# A responder on Mojo::Server::FastCGI: echoes frames and notes events.
#
#   mojo.pl PROCESSES        with the listening socket as its standard input
#
# One request at a time in each process, which closes the connection after its answer.
use Mojolicious::Lite -signatures;
use Mojo::Server::FastCGI;

app->log->level('fatal');
any '/*rest' => { rest => '' } => sub ($c) {
    my $env = $c->req->env;
    open my $notes, '>>', $env->{NOTES} or die;
    syswrite $notes, "$env->{LONGWIRE_EVENT} $env->{SESSIONID} $env->{LONGWIRE_SEQ}\n";
    close $notes;
    $c->render(data => $c->req->body);
};
for (2 .. $ARGV[0]) {
    last if !fork;
}
Mojo::Server::FastCGI->new(app => app)->run;

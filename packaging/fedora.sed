# Makes the configuration of the .rpm from packaging/longwire.toml, which is for Debian. packaging/build.sh runs it, and refuses a line
# that still speaks of Debian afterwards.

# Fedora and its relatives run php-fpm as apache, with its socket and its pools elsewhere.
s/www-data/apache/g
s|/run/php/php-fpm\.sock|/run/php-fpm/www.sock|
s|/run/php/longwire\.sock|/run/php-fpm/longwire.sock|
s|/etc/php/8\.2/fpm/pool\.d/|/etc/php-fpm.d/|
s|php8\.2-fpm|php-fpm|
s| (Debian: pm\.max_children = 5)||

# Debian's pool lets the members of a group in, Fedora's the users that its file lists.
/^# Debian's php-fpm, /c\
# The pool "www" of php-fpm. Its file, /etc/php-fpm.d/www.conf, lists who may connect. Add the service's user there:\
#\
#   listen.acl_users = apache,nginx,longwire

# The example of a pool is Debian's as well.
/^# with your version of PHP, /c\
# with the user, the group and the folder of sockets of www.conf, and then these two lines instead of the two above:

"""Builds the image and replays docker/compose.yaml without Docker, including the pushes that docker/README.md describes.

  python3 tests/containers/compose.py LONGWIRE
"""

import html
import http.client
import pathlib
import re
import shutil
import sys
import urllib.parse

import composed
import runtime
from composed import DOCKER
from runtime import Container, Image, Talk, check, wait_until

# STOPSIGNAL of PHP's image.
PHP_STOP_SIGNAL = "QUIT"


def main():
    binary = pathlib.Path(sys.argv[1]).resolve()
    folder = runtime.enter()
    image = Image(binary, folder)
    kind = "static" if image.is_static else "with the libraries of a dynamic binary"
    print(f"image: {image.bytes / 1e6:.1f} MB, {kind}, user {image.config['User']}")
    check(image.user == (10001, 10001), "not the user of php-fpm.conf")
    no_shell = [path for path in image.root.rglob("*") if path.name in ["sh", "bash", "busybox", "apt-get"]]
    check(not no_shell, f"the image has {no_shell}")

    compose, volumes = composed.load("compose.yaml", folder)
    longwire = longwire_container(compose["services"]["longwire"], image, volumes, folder).start()
    wait_until("the image has started", lambda: "started" in longwire.log() or not longwire.is_running())
    check(longwire.is_running(), longwire.log())
    status, said = longwire.exec(image.health)
    check(status == 1 and "not ready" in said, f"without PHP the health check says {status}: {said}")
    print(f"health: {status} without PHP ({said.strip()})")

    php = composed.php_container(compose["services"]["php"], volumes, folder).start()
    wait_until("the health check says 0", lambda: longwire.exec(image.health)[0] == 0 or not php.is_running())
    check(php.is_running(), php.log())
    print("health: 0 with PHP")

    echo(longwire)
    push_from_a_form(binary, folder)
    push_from_the_php_container(binary, php, folder)

    status = longwire.stop(35)
    check(status == 0, f"longwire ended with {status}\n{longwire.log()}")
    php.stop(10, PHP_STOP_SIGNAL)
    print("stop: 0")


def longwire_container(service, image, volumes, folder):
    check(service["read_only"] and service["cap_drop"] == ["ALL"], "the container has no more rights than it needs")
    check(service["security_opt"] == ["no-new-privileges:true"], "the container gets no new rights")
    return Container("longwire", image.root, image.config["Entrypoint"] + image.config["Cmd"], folder, user=image.user,
                     mounts=composed.mounts(service, volumes), read_only=True, no_new_privileges=True,
                     files=service["ulimits"]["nofile"])


def echo(longwire):
    """The command of docker/README.md."""
    url = re.search(r"exec longwire longwire connect (\S+)", (DOCKER / "README.md").read_text())[1]
    said = longwire.succeeds(["/usr/local/bin/longwire", "connect", url, "--quiet", "--send", "hello"])
    check(said == "hello\n", f"the echo says {said!r}")
    print(f"echo: {url}")


class Visitor:
    """A browser at the form: one cookie and the token of the last page."""

    def __init__(self):
        self.cookie, self.page = "", ""
        self._ask("GET", "/form.php")

    def _ask(self, method, path, fields=None):
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=runtime.PATIENCE_S)
        headers = {"Cookie": self.cookie, "Content-Type": "application/x-www-form-urlencoded"}
        connection.request(method, path, urllib.parse.urlencode(fields or {}), headers)
        answer = connection.getresponse()
        self.page = answer.read().decode()
        check(answer.status in [200, 303], f"{method} {path}: {answer.status} {self.page}")
        for cookie in answer.headers.get_all("Set-Cookie", []):
            self.cookie = cookie.split(";")[0]
        if answer.status == 303:
            self._ask("GET", "/form.php")

    def post(self, **fields):
        token = re.search(r'name="token" value="([^"]+)"', self.page)[1]
        self._ask("POST", "/form.php", fields | {"token": token})


def push_from_a_form(binary, folder):
    """What a person does in the browser: the page, a name, and a note from another person."""
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=runtime.PATIENCE_S)
    connection.request("GET", "/")
    page = connection.getresponse()
    check(page.status == 200 and "notify.js" in page.read().decode(), "there is a page")
    ada, bob = Visitor(), Visitor()
    ada.post(do="enter", name="Ada")
    bob.post(do="enter", name="Bob")
    inbox = Talk(binary, "ws://127.0.0.1:8080/ws", folder, [f"Cookie: {ada.cookie}"])
    inbox.wait_for('"name":"Ada"')
    bob.post(do="send", to="Ada", text="Hello from PHP")
    check("Ada has it, on 1 open page." in html.unescape(bob.page), bob.page)
    inbox.wait_for('"from":"Bob","text":"Hello from PHP"')
    inbox.close()
    print("push: from form.php")


def push_from_the_php_container(binary, php, folder):
    """The command of docker/README.md."""
    code = (DOCKER / "README.md").read_text().split("exec php php -r '")[1].split("\n  '\n")[0]
    client = Talk(binary, "ws://127.0.0.1:8080/echo", folder)
    client.say("hello")
    client.wait_for("hello")
    receipt = php.succeeds([shutil.which("php"), "-r", code])
    check("[reached] => 1" in receipt, receipt)
    client.wait_for("from elsewhere")
    client.close()
    print("push: from a script in the php container")


main()
